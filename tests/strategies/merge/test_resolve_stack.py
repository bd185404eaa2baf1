"""Checking recipes with stacks and with values by pattern: each problem with its place."""

import pytest

from evomerge.recipe.groups import Layout
from evomerge.recipe.holes import Hole
from evomerge.recipe.tree import Input, Merge, Per, Slice, Source, Stack
from evomerge.recipe.values import ByPattern, Gradient
from evomerge.strategies.merge.registry import get
from evomerge.strategies.merge.resolve import RecipeProblem, check, parameters_for

A, B = Source("a"), Source("b")
LAYOUT = Layout(("embed.weight", "layers.0.mlp.weight", "layers.1.mlp.weight"))


def weighted(value: ByPattern) -> Merge:
    return Merge("linear", (Input(A, {"weight": value}), Input(B)))


def test_a_merge_in_a_slice_is_checked_where_it_stands():
    stack = Stack((Slice(A), Slice(Merge("linear", (Input(A, {"wieght": 1}),)))))
    with pytest.raises(RecipeProblem, match=r"^stack\[1\]\.model\.models\[0\]\.wieght: .*did you mean 'weight'"):
        check(stack)


@pytest.mark.parametrize("scale", [True, Hole(choices=(1.0, "two"))])
def test_a_scale_is_a_number(scale: float | Hole):
    with pytest.raises(RecipeProblem, match=r"^stack\[0\]\.scale: must be a number"):
        check(Stack((Slice(A, (0, 1), scale),)))


def test_values_by_pattern_are_checked_one_by_one():
    with pytest.raises(RecipeProblem, match=r"models\[0\]\.density\.\*mlp\*: must be at most 1, and is 2"):
        check(Merge("ties", (Input(A, {"density": ByPattern((("*mlp*", 2),))}),), B))


def test_a_pattern_that_matches_nothing_is_refused_where_tensors_are_known():
    merge = weighted(ByPattern((("*attn*", 1),)))
    check(merge)
    with pytest.raises(RecipeProblem, match=r"models\[0\]\.weight\.\*attn\*: matches no tensor"):
        check(merge, LAYOUT)


def test_a_tensor_has_the_value_of_the_first_pattern_or_the_default():
    merge = weighted(ByPattern((("*.0.*", 0.25), ("layers.*", Gradient((0.0, 0.5))))))
    found = [
        parameters_for(merge, get("linear"), None, LAYOUT.depth(name), name).numbers("weight")[0]
        for name in LAYOUT.tensors
    ]
    assert found == [1.0, 0.25, 0.5]


def test_groups_of_a_merge_in_a_slice_are_those_of_the_slice():
    inner = Merge("linear", (Input(A), Input(B)), per=Per(layers=3))
    layout = Layout(LAYOUT.tensors, {"stack.0.model": Layout(LAYOUT.tensors[:2])})
    with pytest.raises(RecipeProblem, match=r"stack\[0\]\.model\.per: 3 groups of layers are more than the 1 layers"):
        check(Stack((Slice(inner), Slice(A))), layout)
