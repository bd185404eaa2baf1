"""What can be swapped into a running model, and the sentence for what cannot."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from evomerge.backends.vllm.fitting import fits, same_tensors
from evomerge.backends.weights.artifact import AdapterArtifact, CheckpointArtifact
from evomerge.backends.weights.headers import Stored
from evomerge.recipe.tree import Source

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 4,
    "vocab_size": 100,
    "tie_word_embeddings": False,
    "eos_token_id": 2,
    "rope_parameters": {"rope_theta": 10000.0},
    "torch_dtype": "bfloat16",
}


def artifact(folder: Path, changes: dict[str, Any] | None = None) -> CheckpointArtifact:
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return CheckpointArtifact(folder, 1, None if changes is None else CONFIG | changes)


def test_a_result_fits_the_model_that_it_has_the_configuration_of(tmp_path: Path) -> None:
    assert fits(artifact(tmp_path), CONFIG) is None


def test_an_adapter_counts_as_its_base(tmp_path: Path) -> None:
    adapter = AdapterArtifact(Source("base"), artifact(tmp_path).skeleton, 4, 1)
    assert fits(adapter, CONFIG) is None
    assert fits(adapter, CONFIG | {"num_hidden_layers": 5}) is not None


@pytest.mark.parametrize("changes", [{"torch_dtype": "float32"}, {"eos_token_id": 7}, {"attention_bias": False}])
def test_what_makes_no_other_model_makes_no_difference(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert fits(artifact(tmp_path, changes), CONFIG) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_hidden_layers": 6}, "the served model has num_hidden_layers 4, and the recipe's result has 6"),
        ({"vocab_size": 128}, "the served model has vocab_size 100, and the recipe's result has 128"),
        ({"tie_word_embeddings": True}, "the served model has tie_word_embeddings not set, and .* has True"),
        ({"rope_parameters": {"rope_theta": 5.0}}, "rope_parameters"),
        ({"model_type": "qwen2"}, "the served model has model_type 'llama', and the recipe's result has 'qwen2'"),
        ({"pad_or_so": 0}, "the served model has pad_or_so not set, and the recipe's result has 0"),
    ],
)
def test_another_form_is_told_by_the_key_that_differs(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    problem = fits(artifact(tmp_path, changes), CONFIG) or ""
    assert re.search(said, problem), problem


def stored(dtype: str = "BF16", *shape: int) -> Stored:
    return Stored(Path("file"), dtype, shape or (2, 3))


@pytest.mark.parametrize(
    ("ours", "said"),
    [
        ({"a": stored()}, "lacks the tensor b"),
        ({"a": stored(), "b": stored(), "c": stored()}, "has no tensor c"),
        ({"a": stored(), "b": stored("BF16", 3, 2)}, r"tensor b is \[3, 2\] in the recipe's result and \[2, 3\] in"),
        ({"a": stored(), "b": stored("I64")}, "tensor b is I64 in the recipe's result and BF16 in"),
    ],
)
def test_a_tensor_in_another_form_is_named(ours: dict[str, Stored], said: str) -> None:
    problem = same_tensors(ours, {"a": stored(), "b": stored()}) or ""
    assert re.search(said, problem), problem


def test_tensors_may_be_stored_in_another_float_type() -> None:
    assert same_tensors({"a": stored("F32")}, {"a": stored("BF16")}) is None
