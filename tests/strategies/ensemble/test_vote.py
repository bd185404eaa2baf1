"""The vote: weighted, aware of signs, and the same whatever the order of the dice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.strategies.ensemble.protocol import CombinerParameters, Reply
from evomerge.strategies.ensemble.registry import get


def vote(*cast: tuple[str | None, float]) -> str | None:
    """Return the text that wins; a reply's key is its text in small letters."""
    replies = [None if text is None else Reply(text, text.lower()) for text, _ in cast]
    params = CombinerParameters({}, tuple({"weight": weight} for _, weight in cast))
    found = get("vote").combine(replies, params)
    return None if found is None else found.text


@pytest.mark.parametrize(
    ("cast", "winner"),
    [
        ([("a", 1), ("b", 1), ("b", 1)], "b"),
        ([("a", 3), ("b", 1), ("b", 1)], "a"),
        ([("A", 1), ("b", 1.5), ("a", 1)], "A"),
        ([("b", 1), ("a", 1)], "b"),
        ([("a", -1), ("b", 0.1)], "b"),
        ([("a", 1), ("a", -0.5), ("b", 0.6)], "b"),
        ([("a", -1), ("b", -0.5)], "b"),
        ([("a", -1)], "a"),
        ([(None, 5), ("b", 0.1)], "b"),
        ([("a", 0), ("b", -1)], "b"),
        ([("a", 0), ("b", 0)], None),
        ([(None, 1), (None, 1)], None),
    ],
)
def test_the_answer_that_most_weight_speaks_for_wins(cast: list[tuple[str | None, float]], winner: str | None) -> None:
    assert vote(*cast) == winner


BALLOTS = st.lists(
    st.tuples(st.sampled_from(["a", "A", "b", "c", None]), st.integers(-4, 4).map(lambda n: n / 4)), min_size=1
)


@given(BALLOTS)
def test_a_member_without_weight_or_answer_changes_nothing(ballot: list[tuple[str | None, float]]) -> None:
    taking_part = [(text, weight) for text, weight in ballot if text is not None and weight]
    assert vote(*ballot) == (vote(*taking_part) if taking_part else None)


@given(BALLOTS)
def test_the_scale_of_the_weights_changes_nothing(ballot: list[tuple[str | None, float]]) -> None:
    assert vote(*ballot) == vote(*((text, 8 * weight) for text, weight in ballot))


@given(BALLOTS)
def test_the_winner_is_the_best_by_a_plain_count(ballot: list[tuple[str | None, float]]) -> None:
    found = vote(*ballot)
    if found is not None:
        totals = {
            key: sum(weight for text, weight in ballot if text is not None and text.lower() == key)
            for key in {text.lower() for text, weight in ballot if text is not None and weight}
        }
        assert totals[found.lower()] == max(totals.values())
