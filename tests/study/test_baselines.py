"""What a winner has to beat, derived from the recipe alone."""

from evomerge.recipe.holes import Hole
from evomerge.recipe.tree import Input, Merge, Recipe, Result, Slice, Source, Stack
from evomerge.study.baselines import Baseline, baselines

BASE, A, B, C = (Source(f"models/{name}", fingerprint=name) for name in ("root", "a", "b", "c"))
ADAPTER = Source("adapters/x", fingerprint="x")
WEIGHT = {"weight": Hole(0, 1)}


def found(template: Recipe) -> list[Baseline]:
    return baselines(template, lambda source: source.model.startswith("adapters/"))


def names(template: Recipe) -> list[str]:
    return [baseline.name for baseline in found(template)]


def test_base_each_model_the_average_and_ties_are_compared() -> None:
    template = Merge("task_arithmetic", (Input(A, WEIGHT), Input(B, WEIGHT)), BASE)
    assert found(template) == [
        Baseline("base", "base", BASE),
        Baseline("a", "single", A),
        Baseline("b", "single", B),
        Baseline("uniform average", "merge", Merge("linear", (Input(A), Input(B)), BASE)),
        Baseline("ties (published defaults)", "merge", Merge("ties", (Input(A), Input(B)), BASE)),
    ]


def test_an_adapter_alone_is_its_base_with_it() -> None:
    template = Merge("task_arithmetic", (Input(ADAPTER, WEIGHT),), BASE)
    assert found(template)[1:] == [Baseline("x", "single", Merge("task_arithmetic", (Input(ADAPTER),), BASE))]


def test_an_adapter_on_a_searched_base_is_no_model_of_its_own() -> None:
    searched = Merge("linear", (Input(A, WEIGHT), Input(B)))
    assert names(Merge("task_arithmetic", (Input(ADAPTER, WEIGHT),), searched)) == []


def test_models_of_a_searched_input_are_compared_each_once() -> None:
    first = Merge("linear", (Input(A, WEIGHT), Input(B, WEIGHT)))
    second = Merge("task_arithmetic", (Input(B, WEIGHT), Input(ADAPTER)), BASE)
    template = Merge("linear", (Input(first, WEIGHT), Input(second), Input(C)))
    singles = {baseline.name: baseline.recipe for baseline in found(template)}
    assert list(singles)[:2] == ["a", "b"]
    assert singles["a"] == A
    assert singles["x"] == Merge("task_arithmetic", (Input(ADAPTER),), BASE)
    assert singles["c"] == C


def test_models_of_one_name_are_told_apart() -> None:
    other = Source("elsewhere/a", fingerprint="other")
    called_base = Source("models/base", fingerprint="odd")
    template = Merge("linear", (Input(A, WEIGHT), Input(other), Input(called_base)), BASE)
    assert names(template)[:4] == ["base", "a", "a (2)", "base (3)"]


def test_of_a_stack_each_whole_model_is_compared() -> None:
    inner = Merge("linear", (Input(Stack((Slice(B, (0, 2)),)), WEIGHT), Input(C)))
    stack = Stack(
        (Slice(A, (0, 2)), Slice(inner), Slice(A, (1, 2), Hole(0, 1)), Slice(Merge("ties", (Input(ADAPTER),), A)))
    )
    assert found(stack) == [Baseline("a", "single", A), Baseline("b", "single", B), Baseline("c", "single", C)]


def test_of_models_whose_layers_are_merged_the_whole_ones_are_compared() -> None:
    parts = [Stack((Slice(source, (0, 2)),)) for source in (BASE, A)]
    template = Merge("ties", (Input(parts[1], WEIGHT),), parts[0])
    assert found(template) == [Baseline("base", "base", BASE), Baseline("a", "single", A)]


def test_merges_are_compared_under_the_same_tokenizer_and_type() -> None:
    result = Result("bfloat16", B)
    template = Merge("task_arithmetic", (Input(A, WEIGHT), Input(B)), BASE, result=result)
    merges = [baseline.recipe for baseline in found(template) if baseline.kind == "merge"]
    assert merges == [Merge(method, (Input(A), Input(B)), BASE, result=result) for method in ("linear", "ties")]
