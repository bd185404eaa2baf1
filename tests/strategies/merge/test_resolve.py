"""A merge is checked against its method before anything is spent, and its parameters are picked tensor by tensor."""

import pytest

from evomerge.recipe.groups import Layout
from evomerge.recipe.holes import Hole
from evomerge.recipe.space import Space
from evomerge.recipe.tree import Input, Merge, Per, Source, WeightRecipe
from evomerge.recipe.values import ByGroup, Gradient, Params, Value
from evomerge.strategies.merge.registry import get
from evomerge.strategies.merge.resolve import RecipeProblem, check, check_merge, dotted, parameters_for

BASE = Source("base")
LAYOUT = Layout(("model.embed_tokens.weight", "model.layers.0.mlp.up.weight", "model.layers.1.self_attn.q.weight"))
METHODS = Hole(choices=("ties", "linear"), name="how")


def merge(
    method: str | Hole = "ties",
    *each: Params,
    base: WeightRecipe | None = BASE,
    per: Per | None = None,
    **params: Value,
) -> Merge:
    inputs = tuple(Input(Source(f"expert-{index}"), values) for index, values in enumerate(each or ({}, {})))
    return Merge(method, inputs, base=base, params=params, per=per or Per())


def problem(recipe: Merge, layout: Layout | None = None) -> RecipeProblem:
    with pytest.raises(RecipeProblem) as caught:
        check(recipe, layout)
    return caught.value


@pytest.mark.parametrize(
    ("recipe", "where", "sentence"),
    [
        (merge("tees"), "method", "did you mean 'ties'?"),
        (merge(Hole(low=0, high=1)), "method", "a hole with choices of names"),
        (merge(Hole(choices=("ties", "no"))), "method", "no merge method 'no'"),
        (merge("ties", base=None), "base", "ties needs a base"),
        (merge(METHODS, base=None), "base", "ties needs a base"),
        (merge("slerp"), "models", "takes exactly 2 models, the base included, and there are 3"),
        (merge("slerp", {}, base=None), "models", "there are 1"),
        (Merge("linear", ()), "models", "takes at least 1 model, and there are 0"),
        (merge("ties", {}, {"wieght": 1}), "models[1].wieght", "did you mean 'weight'?"),
        (merge("ties", scael=1), "scael", "did you mean 'scale'?"),
        (merge("ties", zzz=1), "zzz", "known are merge_func, scale"),
        (merge("linear", {"density": 0.5}), "models[0].density", "linear has no such parameter for each of the models"),
        (merge("ties", density=0.5), "density", "belongs to each of the models, not to the merge"),
        (merge("ties", {"scale": 1}), "models[0].scale", "belongs to the merge itself, beside 'method'"),
        (merge("ties", {"density": 1.2}), "models[0].density", "must be at most 1, and is 1.2"),
        (merge("ties", {"density": -0.1}), "models[0].density", "must be at least 0, and is -0.1"),
        (merge("dare_linear", {"density": 0}), "models[0].density", "must be at least 0.001, and is 0"),
        (merge("ties", {"density": "half"}), "models[0].density", "must be a number, and is 'half'"),
        (merge("ties", {"weight": True}), "models[0].weight", "must be a number, and is true"),
        (merge("ties", {"weight": float("nan")}), "models[0].weight", "must be a number, and is nan"),
        (merge("ties", merge_func="median"), "merge_func", "must be one of 'mean', 'sum', 'max', and is 'median'"),
        (merge("linear", normalize=1), "normalize", "must be one of true, false, and is 1"),
        (merge("ties", {"density": Hole(low=0, high=2)}), "models[0].density", "must be at most 1, and is 2"),
        (merge("ties", {"density": Hole(choices=(0.2, 3))}), "models[0].density", "must be at most 1, and is 3"),
        (merge("ties", {"density": Hole(choices=(0.2, "a"))}), "models[0].density", "must be a number"),
        (merge("ties", merge_func=Hole(low=0, high=1)), "merge_func", "has no low and high; its choices are 'mean'"),
        (merge("ties", merge_func=Hole(choices=("mean", "avg"))), "merge_func", "and is 'avg'"),
        (merge("ties", {"density": Gradient((0.1, 1.5))}), "models[0].density[1]", "must be at most 1"),
        (merge("ties", {"density": Gradient((0.1,))}), "models[0].density", "at least two numbers"),
        (merge("linear", normalize=Gradient((0, 1))), "normalize", "cannot change over depth"),
        (merge("ties", scale=ByGroup({"mlp": 1.0})), "scale.mlp", "per: names none"),
        (
            merge("ties", scale=ByGroup({"atention": 1.0}), per=Per(groups=("attention", "rest"))),
            "scale.atention",
            "is none of the groups attention, rest; did you mean 'attention'?",
        ),
        (merge("ties", scale=ByGroup({"mlp": "x"}), per=Per(groups=("mlp",))), "scale.mlp", "must be a number"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(recipe: Merge, where: str, sentence: str) -> None:
    found = problem(recipe)
    assert dotted(found.path) == where
    assert sentence in found.sentence
    assert str(found) == f"{where}: {found.sentence}"


@pytest.mark.parametrize(
    "recipe",
    [
        merge("ties"),
        merge("linear", base=None),
        merge("linear"),
        merge("slerp", {}),
        merge("slerp", base=None, t=Gradient((0, 0.5, Hole(low=0, high=1)))),
        merge("ties", {"density": 0}, {"density": 1, "weight": Hole(low=-1, high=2)}, scale=Hole(0.1, 1.5, log=True)),
        merge("dare_ties", rescale=Hole(choices=("l1", "unbiased")), merge_func="mean"),
        merge("task_arithmetic", normalize=ByGroup({"mlp": True}), per=Per(groups=("mlp", "rest"))),
        merge("ties", scale=ByGroup({"anything": 1.0}), per=Per(layers=4)),
        merge(Hole(choices=("linear", "task_arithmetic", "ties")), {"weight": 0.5}),
    ],
)
def test_what_can_be_is_accepted(recipe: Merge) -> None:
    check(recipe)


def test_nested_merges_are_checked_where_they_stand() -> None:
    inner = merge("ties", {"weigth": 1})
    outer = Merge("linear", (Input(BASE), Input(inner)))
    assert problem(outer).path == ("models", 1, "model", "models", 0, "weigth")
    assert problem(Merge("ties", (Input(BASE),), base=inner)).path[0] == "base"
    check_merge(outer)


def test_groups_are_checked_against_the_tensors() -> None:
    layers = merge("ties", scale=ByGroup({"layers_1_of_2": 1.0, "layers_2_of_3": 1.0}), per=Per(layers=2))
    check(layers)
    assert problem(layers, LAYOUT).path == ("scale", "layers_2_of_3")
    found = problem(merge("ties", per=Per(groups=("mlp", "nothing"))), LAYOUT)
    assert found.path == ("per",)
    assert found.sentence.startswith("unknown group 'nothing'")


def conditional(**when: tuple[str, ...]) -> Hole:
    return Hole(choices=(0.4,), when=when)


def test_parameter_of_some_choices_must_say_when_it_exists() -> None:
    found = problem(merge(METHODS, {"density": 0.4}))
    assert found.path == ("models", 0, "density")
    assert "linear does not have it; write it as a hole with when: {how: [ties]}" in found.sentence
    problem(merge(METHODS, {"density": Hole(low=0, high=1)}))
    problem(merge(METHODS, {"density": conditional(how=("ties", "linear"))}))
    problem(merge(METHODS, {"density": conditional(other=("ties",))}))
    check(merge(METHODS, {"density": conditional(how=("ties",))}))


def test_parameter_of_no_choice_is_unknown() -> None:
    assert "did you mean 'density'?" in problem(merge(METHODS, {"dnesity": conditional(how=("ties",))})).sentence


def test_choice_without_a_name_is_named_by_its_place() -> None:
    inner = merge(Hole(choices=("ties", "linear")), {"density": conditional(**{"models.0.model.method": ("ties",)})})
    check(Merge("linear", (Input(inner),)))
    assert "when: {method: [ties]}" in problem(inner).sentence


def test_what_decoding_leaves_fits_the_method_that_was_chosen() -> None:
    template = merge(METHODS, {"density": Hole(low=0.1, high=0.9, when={"how": ("ties",)})}, {"weight": 0.5})
    check(template)
    space = Space(template)
    for vector, name, keys in [((0.1, 0.5), "ties", {"weight", "density"}), ((0.9, 0.5), "linear", {"weight"})]:
        decoded = space.decode(vector)
        check(decoded)
        assert decoded.method == name
        found = parameters_for(decoded, get(name), None, 0.0)
        assert found.inputs[0].keys() == keys


def test_parameters_are_given_or_at_their_defaults() -> None:
    found = parameters_for(merge("ties", {"weight": 1}, {"density": 0.5}, scale=2), get("ties"), None, 0.0)
    assert found.merge == {"scale": 2.0, "merge_func": "mean", "scope": "tensor"}
    assert found.inputs == ({"weight": 1.0, "density": 0.2}, {"weight": 1.0, "density": 0.5})
    assert all(type(value) is float for values in found.inputs for value in values.values())
    assert found.number("scale") == 2.0
    assert found.choice("merge_func") == "mean"
    assert found.numbers("density") == (0.2, 0.5)


def test_parameters_follow_depth_and_group() -> None:
    recipe = merge(
        "ties",
        {"weight": Gradient((0.0, 1.0, 0.5))},
        {"weight": ByGroup({"mlp": 0.3, "attention": Gradient((0, 1))})},
        per=Per(groups=("attention", "mlp", "rest")),
    )
    picked = {
        (group, depth): parameters_for(recipe, get("ties"), group, depth).numbers("weight")
        for group in ("attention", "mlp", "rest")
        for depth in (0.0, 0.25, 1.0)
    }
    assert picked["mlp", 0.25] == (0.5, 0.3)
    assert picked["attention", 0.25] == (0.5, 0.25)
    assert picked["attention", 1.0] == (0.5, 1.0)
    assert picked["rest", 0.0] == (0.0, 1.0)


@pytest.mark.parametrize(
    ("recipe", "where"),
    [
        (merge("linear", {"density": 0.5}), "models[0].density"),
        (merge("linear", {"weight": Hole(low=0, high=1)}), "models[0].weight"),
        (merge("linear", {"weight": ByGroup({"mlp": 1.0})}), "models[0].weight"),
    ],
)
def test_parameters_are_never_left_out_in_silence(recipe: Merge, where: str) -> None:
    with pytest.raises(RecipeProblem) as caught:
        parameters_for(recipe, get("linear"), None, 0.0)
    assert dotted(caught.value.path) == where


def test_groups_of_ones_own_that_nothing_uses_are_refused() -> None:
    merge = Merge("linear", (Input(Source("a")), Input(Source("b"))), groups={"early": ("model.layers.0.*",)})
    with pytest.raises(RecipeProblem, match=r"groups\.early: this group is used nowhere"):
        check(merge)
