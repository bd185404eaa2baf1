"""Files of mergekit as recipes: what they say, what they leave out, and what is refused with its place."""

from collections.abc import Callable
from pathlib import Path

import pytest

from evomerge.errors import ConfigError
from evomerge.recipe.mergekit.methods import METHODS
from evomerge.recipe.mergekit.read import Converted, is_mergekit, read_mergekit
from evomerge.recipe.tree import Input, Merge, Result, Slice, Source, Stack
from evomerge.recipe.values import ByPattern, Gradient
from evomerge.strategies.merge.registry import methods
from evomerge.strategies.merge.resolve import check

A, B, C = Source("./a"), Source("./b"), Source("./c")
TWO = "models: [{model: ./a, parameters: {weight: 0.3}}, {model: ./b, parameters: {weight: 0.7}}]\n"


SLERP = "merge_method: slerp\nbase_model: ./a\nmodels: [{model: ./b}]\n"
ONE = "models: [{model: ./a}]\n"
Read = Callable[[str], Converted]
Merged = Callable[[str], Merge]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read(text: str) -> Converted:
        file = tmp_path / "their.yaml"
        file.write_text(text)
        assert is_mergekit(file)
        found = read_mergekit(file)
        check(found.recipe)
        return found

    return read


@pytest.fixture
def merged(read: Read) -> Merged:
    def merged(text: str) -> Merge:
        recipe = read(text).recipe
        assert isinstance(recipe, Merge)
        return recipe

    return merged


def pattern(value: object) -> ByPattern:
    assert isinstance(value, ByPattern)
    return value


def test_only_files_that_name_a_method_are_of_mergekit(tmp_path: Path):
    (tmp_path / "ours.yaml").write_text("method: linear\nmodels: [{model: a}]\n# merge_method: ties\n")
    assert not is_mergekit(tmp_path / "ours.yaml")


def test_weights_of_models_are_theirs(read: Read):
    found = read("merge_method: linear\n" + TWO)
    inputs = (Input(A, {"weight": 0.3}), Input(B, {"weight": 0.7}))
    assert found == Converted(Merge("linear", inputs, params={"normalize": True}, result=Result("base")), ())


@pytest.mark.parametrize("name", METHODS)
def test_what_is_left_out_is_at_mergekits_default(merged: Merged, name: str):
    meant = METHODS[name]
    models = (
        "models: [{model: ./a}, {model: ./b}]\n"
        if name not in ("slerp", "nearswap", "arcee_fusion")
        else "models: [{model: ./a}]\n"
    )
    base = "" if name in ("linear", "karcher", "nuslerp", "multislerp") else "base_model: ./c\n"
    t = "parameters: {t: 0.5}\n" if name in ("slerp", "nearswap") else ""
    recipe = merged(f"merge_method: {name}\n{base}{models}{t}")
    assert isinstance(recipe, Merge)
    assert recipe.method == meant.ours
    assert recipe.method in methods()
    assert recipe.base == (C if base else None)
    known = {p.name: p for p in methods()[meant.ours].parameters}
    for name_, parameter in {**meant.merge, **meant.models}.items():
        assert parameter.ours in known, name_
    for item in recipe.inputs:
        assert item.params == {p.ours: p.default for p in meant.models.values()}
    told = {p.ours: p.words.get(p.default, p.default) if p.default is not None else 0.5 for p in meant.merge.values()}
    assert recipe.params == told | dict(meant.besides)


def test_defaults_that_differ_from_ours(merged: Merged):
    ties = merged(f"merge_method: ties\nbase_model: ./c\n{TWO}")
    assert ties.inputs[0].params == {"weight": 0.3, "density": 1.0}
    assert ties.params == {"scale": 1.0, "merge_func": "mean"}
    dare = merged(f"merge_method: dare_ties\nbase_model: ./c\n{TWO}parameters: {{lambda: 0.5}}")
    assert dare.params == {"scale": 0.5, "merge_func": "sum", "rescale": "l1"}
    stock = merged("merge_method: model_stock\nbase_model: ./c\nmodels: [{model: ./a}, {model: ./b}]")
    assert stock.params == {"filter_wise": False, "clamp": False}


def test_the_nearest_setting_counts(merged: Merged):
    recipe = merged(
        "merge_method: ties\nbase_model: ./c\nparameters: {density: 0.2, weight: 0.9}\n"
        "models: [{model: ./a, parameters: {density: 0.5}}, {model: ./b}]"
    )
    assert [item.params for item in recipe.inputs] == [{"weight": 0.9, "density": 0.5}, {"weight": 0.9, "density": 0.2}]


def test_filters_are_patterns_and_those_without_a_match_ask_further(merged: Merged):
    recipe = merged(
        "merge_method: linear\nparameters: {weight: [{filter: mlp, value: 3}, {value: 4}]}\n"
        "models:\n- model: ./a\n  parameters: {weight: [{filter: self_attn, value: 1}, {filter: 'q[0]', value: 2}]}\n"
        "- model: ./b\n  parameters: {weight: {filter: '*', value: 5}}"
    )
    first, second = (item.params["weight"] for item in recipe.inputs)
    assert pattern(first) == ByPattern((("*self_attn*", 1), ("*q[[]0]*", 2), ("*mlp*", 3), ("*", 4)))
    assert second == 5
    assert [pattern(first).of(name) for name in ("l.self_attn.q[0].mlp", "q[0]", "mlp", "norm")] == [1, 2, 3, 4]


def test_filters_without_a_last_value_end_at_the_default(merged: Merged):
    recipe = merged(
        f"merge_method: ties\nbase_model: ./c\n{ONE}parameters: {{weight: 1, density: [{{filter: mlp, value: 0.5}}]}}"
    )
    assert recipe.inputs[0].params["density"] == ByPattern((("*mlp*", 0.5), ("*", 1.0)))


def test_a_list_is_a_gradient_in_the_layers_and_its_first_point_elsewhere(merged: Merged):
    recipe = merged(SLERP + "parameters: {t: [0.1, 0.5, 1]}")
    assert recipe.base == A
    assert [item.recipe for item in recipe.inputs] == [B]
    value = pattern(recipe.params["t"])
    assert value.of("model.layers.3.mlp.up_proj.weight") == Gradient((0.1, 0.5, 1))
    assert [value.of(name) for name in ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight")] == [
        0.1
    ] * 3


@pytest.mark.parametrize(("written", "found"), [("[0.5]", 0.5), ("[0.5, 0.5]", 0.5), ("0.5", 0.5)])
def test_a_list_of_one_number_is_that_number(merged: Merged, written: str, found: float):
    recipe = merged(f"merge_method: slerp\nbase_model: ./a\nmodels: [{{model: ./b}}]\nparameters: {{t: {written}}}")
    assert recipe.params["t"] == found


def test_the_base_among_the_models_is_no_input_but_where_it_counts(merged: Merged):
    three = "models: [{model: ./c}, {model: ./a, parameters: {weight: 2}}]\nbase_model: ./c\n"
    ties = merged("merge_method: task_arithmetic\n" + three)
    assert (ties.base, [item.recipe for item in ties.inputs]) == (C, [A])
    linear = merged("merge_method: linear\n" + three)
    assert (linear.base, [item.recipe for item in linear.inputs]) == (C, [C, A])
    added = merged("merge_method: linear\nbase_model: ./c\n" + TWO)
    assert [(item.recipe, item.params["weight"]) for item in added.inputs] == [(A, 0.3), (B, 0.7), (C, 1.0)]


def test_models_have_revisions_and_adapters(merged: Merged):
    text = """
merge_method: linear
models:
  - model: org/name@main+./lora@v2
  - model: {model: {path: ./b, revision: null}, lora: ./lora}
  - model: {model: org/other@x}
"""
    first, second, third = (item.recipe for item in merged(text).inputs)
    adapted = Merge("task_arithmetic", (Input(Source("./lora", "v2")),), Source("org/name", "main"))
    assert first == adapted
    assert second == Merge("task_arithmetic", (Input(Source("./lora")),), B)
    assert third == Source("org/other", "x")


def test_slices_of_one_merge_are_layers_of_its_models(merged: Merged):
    recipe = merged("""
merge_method: ties
base_model: ./c
slices:
  - sources:
      - {model: ./c, layer_range: [0, 4]}
      - {model: ./a, layer_range: [2, 6], parameters: {weight: 0.5}}
    parameters: {density: 0.3}
""")
    assert recipe.base == Stack((Slice(C, (0, 4)),))
    assert recipe.inputs == (Input(Stack((Slice(A, (2, 6)),)), {"weight": 0.5, "density": 0.3}),)


def test_several_slices_are_a_stack_that_ends_as_its_last_slice(read: Read):
    recipe = read("""
merge_method: passthrough
dtype: bfloat16
slices:
  - sources: [{model: ./a, layer_range: [0, 3]}]
  - sources: [{model: ./b, layer_range: [1, 4]}]
""").recipe
    assert recipe == Stack((Slice(A, (0, 3)), Slice(B, (1, 4))), head="last", result=Result("bfloat16"))


def test_a_scale_of_passthrough_is_a_sum_of_one_model(read: Read):
    recipe = read("""
merge_method: passthrough
slices:
  - sources:
      - model: ./a
        layer_range: [0, 3]
        parameters: {scale: [{filter: o_proj, value: 0}, {value: 1}]}
  - sources: [{model: ./a, layer_range: [3, 4]}]
""").recipe
    weight = ByPattern((("*o_proj*", 0), ("*", 1)))
    scaled = Merge("linear", (Input(Stack((Slice(A, (0, 3)),)), {"weight": weight}),), params={"normalize": False})
    assert isinstance(recipe, Stack)
    assert recipe.slices == (Slice(scaled), Slice(A, (3, 4)))


def test_a_whole_model_is_passed_through(read: Read):
    assert read("merge_method: passthrough\nmodels: [{model: ./a}]").recipe == Stack((Slice(A),), result=Result("base"))


def test_documents_use_each_other_by_name(read: Read):
    found = read("""
merge_method: slerp
base_model: ./a
models: [{model: first}]
parameters: {t: 0.5}
dtype: float16
---
name: first
merge_method: linear
dtype: bfloat16
models: [{model: ./a}, {model: second+./lora}]
---
# the last
name: second
merge_method: passthrough
models: [{model: ./b}]
---
""")
    second = Stack((Slice(B),))
    adapted = Merge("task_arithmetic", (Input(Source("./lora")),), second)
    first = Merge("linear", (Input(A, {"weight": 1.0}), Input(adapted, {"weight": 1.0})), params={"normalize": True})
    assert found.recipe == Merge("slerp", (Input(first),), A, {"t": 0.5}, result=Result("float16"))
    assert found.notes == ("first is not rounded to bfloat16 before it is merged further",)


def test_where_all_documents_have_names_the_last_is_the_result(merged: Merged):
    text = f"name: x\nmerge_method: linear\n{ONE}---\nname: y\nmerge_method: linear\nmodels: [{{model: x}}]"
    recipe = merged(text)
    assert isinstance(recipe.inputs[0].recipe, Merge)


@pytest.mark.parametrize(
    ("written", "dtype"),
    [
        ("", "base"),
        ("dtype: bfloat16", "bfloat16"),
        ("dtype: torch.float16", "float16"),
        ("dtype: float32\nout_dtype: bfloat16", "bfloat16"),
    ],
)
def test_the_type_of_the_result_is_out_dtype_or_dtype(read: Read, written: str, dtype: str):
    assert read(f"merge_method: linear\n{TWO}{written}").recipe.result.dtype == dtype


@pytest.mark.parametrize(
    ("written", "tokenizer"),
    [
        ("tokenizer_source: union", "union"),
        ("tokenizer_source: base", "base"),
        ("tokenizer_source: ./b", B),
        ("tokenizer: {source: ./b}", B),
        ("tokenizer: {}", "union"),
    ],
)
def test_whose_tokenizer_the_result_has(read: Read, written: str, tokenizer: object):
    assert read(f"merge_method: linear\n{TWO}{written}").recipe.result.tokenizer == tokenizer


def test_what_changes_nothing_is_left_out_with_a_note(read: Read, tmp_path: Path):
    text = f"merge_method: linear\n{TWO}parameters: {{int8_mask: true, density: 0.5}}"
    assert read(text).notes == (
        f"{tmp_path}/their.yaml:3: parameters.int8_mask: is left out; it only saves memory there",
        f"{tmp_path}/their.yaml:3: parameters.density: is left out; it has no effect on this method",
    )


LINEAR = "merge_method: linear\n" + TWO
TIES = "merge_method: ties\nbase_model: ./c\n" + TWO
SLICE = "merge_method: linear\nslices:\n- sources:\n  - {model: ./a, layer_range: [0, 2]}\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("merge_method: tise\n" + TWO, r"1: merge_method: there is no method 'tise' here; did you mean 'ties'\?"),
        ("merge_method: linear\nmodel: ./a", r"2: model: unknown key 'model'; did you mean 'models'\?"),
        ("merge_method: linear", "1: there must be either models or slices"),
        (LINEAR + "slices: []", "1: there must be either models or slices"),
        ("merge_method: linear\nmodules: {}", "2: modules: parts of a model of several"),
        ("merge_method: linear\nslices: []", "2: slices: the list is empty"),
        ("merge_method: ties\n" + TWO, "1: ties needs a base_model; add it"),
        (LINEAR + "parameters: {wieght: 1}", r"parameters\.wieght: no method of mergekit has this parameter; did you"),
        (TIES + "parameters: {rescale: true}", r"parameters\.rescale: true cannot be expressed here; remove it"),
        (
            "merge_method: dare_ties\nbase_model: ./c\n" + TWO + "parameters: {rescale: false}",
            r"4: parameters\.rescale: false cannot be expressed here",
        ),
        (LINEAR + "parameters: {normalize: maybe}", r"parameters\.normalize: must be true or false, and is 'maybe'"),
        (LINEAR + "parameters: {normalize: [true, false]}", r"parameters\.normalize: only numbers can change"),
        (SLERP, r"parameters\.t: it is missing, and the method"),
        (
            SLERP + "parameters: {t: [{filter: mlp, value: 1}]}",
            r"parameters\.t: no filter names some of its tensors; add `- value:`",
        ),
        (
            "merge_method: linear\nparameters: {weight: [{filtre: mlp, value: 1}]}\n" + ONE,
            r"weight\[0\]\.filtre: unknown",
        ),
        (LINEAR + "dtype: float64", "dtype: float64 is not written here"),
        (LINEAR + "chat_template: auto", "chat_template: the result keeps the chat template"),
        (LINEAR + "tokenizer: {pad_to_multiple_of: 8}", r"tokenizer\.pad_to_multiple_of: this cannot be expressed"),
        (LINEAR + "tokenizer: {tokens: {x: {source: ./a}}}", r"tokenizer\.tokens: this cannot be expressed"),
        (LINEAR + "tokenizer_source: base\ntokenizer: {}", "tokenizer_source: there is a tokenizer as well"),
        ("merge_method: linear\nmodels: [{model: ./a}, {model: ./a}]", r"models\[1\]\.model: this model is there"),
        ("merge_method: linear\nmodels: [{model: a+b+c}]", r"models\[0\]\.model: 'a\+b\+c' is no model"),
        ("merge_method: linear\nmodels: [{model: a@b@c}]", r"models\[0\]\.model: 'a@b@c' is no model"),
        (
            "merge_method: linear\nmodels: [{model: {model: ./a, override_architecture: X}}]",
            r"models\[0\]\.model\.override_architecture: only model and lora are read",
        ),
        ("merge_method: passthrough\n" + TWO, "models: passthrough takes one model, and there are 2"),
        ("merge_method: ties\nbase_model: ./a\nmodels: [{model: ./a}]", "models: there is no model besides the base"),
        (
            "merge_method: ties\nbase_model: ./c\nparameters: {weight: -1}\nmodels: [{model: ./a}]",
            "divides by the sum of the weights' magnitudes here",
        ),
        (SLICE + "  - {model: ./b, layer_range: [0, 3]}", r"sources\[1\]\.layer_range: 3 layers, and the first"),
        (SLICE.replace("0, 2", "2, 2"), r"sources\[0\]\.layer_range: \[2, 2\] is no range of layers"),
        (SLICE + "  residual_weight: 0.5", r"slices\[0\]\.residual_weight: no method reads it"),
        (SLICE + "base_model: ./c", "base_model: the base is none of the sources of the slice"),
        (
            SLICE + "parameters: {weight: [{filter: layers.1.mlp, value: 2}, {value: 1}]}",
            r"weight\[0\]\.filter: the layer in 'layers.1.mlp' has another number within its slice",
        ),
        (
            "name: x\nmerge_method: linear\nmodels: [{model: y}]\n---\nname: y\nmerge_method: linear\n"
            "models: [{model: x}]",
            r"3: models\[0\]\.model: 'y' is made of itself",
        ),
        ("name: x\n" + LINEAR + "---\nname: x\n" + LINEAR, r"5: name: two documents are called 'x'"),
        (LINEAR + "---\n" + LINEAR, "4: two documents have no name"),
        (
            "name: x\n" + LINEAR + "tokenizer_source: union\n---\nmerge_method: linear\nmodels: [{model: x}]",
            "4: tokenizer_source: this is kept of the outermost document only",
        ),
        (LINEAR + "parameters: &p {weight: 1}", "anchors and aliases"),
    ],
)
def test_what_cannot_be_expressed_is_refused_with_its_place(read: Read, text: str, sentence: str):
    with pytest.raises(ConfigError, match=rf"their\.yaml:.*{sentence}"):
        read(text)
