"""A recipe that was sent is the recipe that arrives."""

import json
import sys
from pathlib import Path

import pytest

from evomerge.backends.vllm import wire
from evomerge.backends.vllm.wire import from_wire, to_wire
from evomerge.errors import ConfigError
from evomerge.recipe.tree import (
    Input,
    Merge,
    Per,
    Result,
    Slice,
    Source,
    Stack,
    WeightRecipe,
    recipe_id,
)
from evomerge.recipe.values import ByGroup
from evomerge.strategies.merge import registry
from evomerge.study.own_methods import import_methods

A, B, C = (Source(f"/models/{name}", fingerprint=name * 8) for name in "abc")
HUB = Source("some/model", "main", "f" * 32)
OWN = """
from evomerge import Needs, method

@method("wire_test", title="First", needs=Needs("unused", (1, None)), parameters=(), source="a test", evidence="R")
def first(ctx, base, inputs, params):
    return inputs[0] * {factor}
"""


def merge(*inputs: WeightRecipe, method: str = "ties", base: WeightRecipe | None = None, **others: object) -> Merge:
    given = tuple(Input(item, {"weight": 0.1 + 0.2 * number}) for number, item in enumerate(inputs))
    return Merge(method, given, base=base, **others)  # pyright: ignore[reportArgumentType]  # the fields of a merge


GROUPED = ByGroup({"attention": 0.123456789, "rest": 1e-9})
RECIPES: dict[str, WeightRecipe] = {
    "a model": A,
    "a model of a hub": HUB,
    "a merge": merge(B, C, base=A, params={"scale": 0.30000000000000004}, seed=2**40),
    "a merge of merges": merge(merge(A, B, method="linear"), merge(B, HUB, base=A), base=A),
    "values by group": merge(B, base=A, params={"scale": GROUPED}, per=Per(("attention",)), groups={"x": ("*.q", "y")}),
    "a factored change": merge(B, base=A, refactor=3),
    "another dtype and vocabulary": merge(B, base=A, result=Result("float32", B)),
    "the union of vocabularies": merge(B, base=A, result=Result(None, "union")),
    "a stack": Stack((Slice(A, (0, 2)), Slice(merge(B, C, method="linear"), (1, 4), 0.5)), base=B, head="last"),
    "some layers of a model": Stack((Slice(A, (0, 2)),)),
    "a merge of stacks": merge(Stack((Slice(A, (0, 2)),)), Stack((Slice(B, (1, 3)),)), method="linear"),
}


@pytest.mark.parametrize("name", RECIPES)
def test_what_arrives_is_what_was_sent(name: str) -> None:
    arrived = from_wire(json.loads(json.dumps(to_wire(RECIPES[name]))))
    assert arrived == RECIPES[name]
    assert recipe_id(arrived) == recipe_id(RECIPES[name])


def test_what_is_no_recipe_is_refused_in_a_sentence() -> None:
    with pytest.raises(ConfigError, match=r"what was sent is no recipe \(.*method"):
        from_wire(to_wire(A) | {"recipe": {"method": 3, "models": []}})


def test_a_source_without_a_fingerprint_is_refused() -> None:
    with pytest.raises(ConfigError, match="names no fingerprint for /models/b"):
        from_wire(to_wire(A) | {"recipe": {"model": "/models/b"}})


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a method of one's own, imported as in the process that runs a study."""
    registry.methods()
    monkeypatch.setattr(registry, "_declared", dict(registry._declared))
    monkeypatch.setattr(wire, "_imported", {})
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "wire_methods.py").write_text(OWN.format(factor=1))
    import_methods(RECIPE_OF_OWN, tmp_path)
    return tmp_path


NAME = "parts.wire_methods:first"
RECIPE_OF_OWN = merge(A, method=NAME)


def forgotten() -> None:
    """Make this process like the worker's, which has not heard of the method."""
    registry._declared.pop(NAME)
    for name in ("parts.wire_methods", "parts"):
        sys.modules.pop(name, None)


def test_a_method_of_ones_own_is_imported_where_it_arrives(own: Path) -> None:
    sent = to_wire(RECIPE_OF_OWN)
    forgotten()
    assert from_wire(sent) == RECIPE_OF_OWN
    assert registry.get(NAME).apply(None, None, [2.0], None) == 2.0  # pyright: ignore[reportArgumentType]  # a formula of numbers


def test_changed_code_is_imported_again_where_the_change_was_sent(own: Path) -> None:
    from_wire(to_wire(RECIPE_OF_OWN))
    (own / "parts" / "wire_methods.py").write_text(OWN.format(factor=100))
    import_methods(RECIPE_OF_OWN, own)
    from_wire(to_wire(RECIPE_OF_OWN))
    assert registry.get(NAME).apply(None, None, [2.0], None) == 200.0  # pyright: ignore[reportArgumentType]  # a formula of numbers


def test_code_that_changed_on_the_way_is_refused(own: Path) -> None:
    sent = to_wire(RECIPE_OF_OWN)
    (own / "parts" / "wire_methods.py").write_text(OWN.format(factor=100))
    forgotten()
    with pytest.raises(ConfigError, match=r"the code of the merge method parts\.wire_methods:first in .* was changed"):
        from_wire(sent)


def test_code_that_is_not_where_the_worker_is_is_refused(own: Path) -> None:
    sent = to_wire(RECIPE_OF_OWN)
    forgotten()
    for method in sent["methods"]:
        method["folder"] = str(own / "elsewhere")
    with pytest.raises(ConfigError, match="which the server's worker cannot see"):
        from_wire(sent)


def test_what_is_no_method_is_refused(own: Path) -> None:
    sent = to_wire(RECIPE_OF_OWN)
    for method in sent["methods"]:
        method["name"] = "parts.wire_methods:Needs"
    with pytest.raises(ConfigError, match="Needs is no merge method"):
        from_wire(sent)
