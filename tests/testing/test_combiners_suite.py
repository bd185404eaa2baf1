"""The conformance suite passes for every registered combiner, and fails on each way to be broken."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from typing import Any, cast

import pytest

from evomerge.strategies.ensemble.protocol import Combine, Combiner, CombinerParameters, Reply
from evomerge.strategies.ensemble.registry import combiners, get
from evomerge.strategies.merge.protocol import Parameter
from evomerge.testing.combiners import check_combiner


@pytest.mark.parametrize("name", combiners())
def test_registered_combiner_conforms(name: str) -> None:
    check_combiner(get(name))


def first(replies: Sequence[Reply | None], params: CombinerParameters) -> Reply | None:
    return next((reply for reply in replies if reply is not None), None)


def build(combine: Combine) -> Combiner:
    return Combiner("own", "Own", (), "nobody", combine)


def test_own_combiner_conforms() -> None:
    check_combiner(build(first))


def emptying(replies: Sequence[Reply | None], params: CombinerParameters) -> Reply | None:
    found = first(replies, params)
    if len(replies) == 3 and replies[1] is None:
        cast(list[Any], replies).clear()
    return found


def fickle() -> Combine:
    calls = count()
    return lambda replies, params: (
        Reply(str(next(calls)), "x")
        if {*replies} - {None} and len({*replies}) > 1 and None in replies
        else first(replies, params)
    )


@pytest.mark.parametrize(
    ("combine", "sentence"),
    [
        (lambda _, __: Reply("", ""), "answers where nobody does"),
        (lambda _, __: None, "does not believe a member alone"),
        (lambda replies, params: first(replies, params) if len(replies) == 1 else None, "members who agree"),
        (lambda replies, params: "yes" if None in replies and any(replies) else first(replies, params), "is no reply"),
        (emptying, "changes the replies"),
        (fickle(), "two results"),
    ],
)
def test_each_way_to_be_broken_is_found(combine: Combine, sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check_combiner(build(combine))


@pytest.mark.parametrize(
    ("parameter", "sentence"),
    [
        (Parameter("strength", "merge", 0.5, "How much."), "neither ensemble nor member"),
        (Parameter("strength", "member", 0.5, ""), "says nothing"),
        (Parameter("tie", "ensemble", "last", "Who.", choices=("first", "least")), "none of its choices"),
    ],
)
def test_a_parameter_that_is_declared_wrongly_is_found(parameter: Parameter, sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check_combiner(replace(build(first), parameters=(parameter,)))
