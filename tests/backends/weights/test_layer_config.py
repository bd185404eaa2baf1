"""Configurations of stacks: as many layers as there are, each of its own kind."""

from pathlib import Path
from typing import Any

import pytest

from evomerge.backends.weights.layer_config import layers_in, stacked_config
from evomerge.errors import SourceError

F, S = "full_attention", "sliding_attention"
A: dict[str, Any] = {"num_hidden_layers": 3, "layer_types": [S, S, F], "hidden_size": 8, "eos_token_id": [1, 2, 3]}
B: dict[str, Any] = {"num_hidden_layers": 4, "layer_types": [S, F, S, F], "hidden_size": 8, "eos_token_id": [1, 2, 3]}


def stacked(base: dict[str, Any], *layers: tuple[dict[str, Any], int]) -> dict[str, Any]:
    return stacked_config(base, [(config, number, Path("model")) for config, number in layers])


def test_number_and_kinds_of_layers_follow_the_stack():
    found = stacked(A, (A, 2), (B, 1), (B, 2), (A, 0))
    assert found == A | {"num_hidden_layers": 4, "layer_types": [F, F, S, S]}


def test_lists_as_long_as_there_are_layers_that_are_about_tokens_stay():
    assert stacked(A, (A, 0), (A, 1))["eos_token_id"] == [1, 2, 3]


def test_numbers_of_layers_are_counted_anew():
    mixed = A | {"mlp_only_layers": [0, 2]}
    assert stacked(mixed, (mixed, 2), (mixed, 1), (B, 0), (mixed, 0))["mlp_only_layers"] == [0, 3]


def test_a_letter_a_layer_is_a_list():
    letters = {"num_hidden_layers": 3, "hybrid_override_pattern": "M-*"}
    assert stacked(letters, (letters, 2), (letters, 0))["hybrid_override_pattern"] == "*M"


def test_the_language_model_of_several_is_meant():
    inner = {"text_config": A, "vision_config": {"num_hidden_layers": 9}}
    found = stacked(inner, (inner, 0), (inner, 2))
    assert found["text_config"] == A | {"num_hidden_layers": 2, "layer_types": [S, F]}
    assert found["vision_config"] == {"num_hidden_layers": 9}
    assert layers_in(inner) == 3


def test_other_words_for_the_number_of_layers_are_known():
    gpt2 = {"n_layer": 2}
    assert stacked(gpt2, (gpt2, 0), (gpt2, 1), (gpt2, 1)) == {"n_layer": 3}


def test_a_rule_about_numbers_is_refused_unless_a_list_says_it():
    rule = {"num_hidden_layers": 4, "sliding_window_pattern": 2}
    with pytest.raises(SourceError, match=r"model/config\.json: sliding_window_pattern \(2\).*that writes layer_types"):
        stacked(rule, (rule, 0))
    told = B | {"sliding_window_pattern": 2, "use_sliding_window": False, "decoder_sparse_step": 1}
    assert stacked(told, (told, 1))["layer_types"] == [F]


def test_a_list_that_one_model_lacks_is_refused():
    with pytest.raises(SourceError, match="has no layer_types with an entry for each layer"):
        stacked(A, (A, 0), ({"num_hidden_layers": 2}, 0))
