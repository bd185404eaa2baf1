"""Splits: which items are searched, which select the winner, and which test it.

Disjoint by construction: an item, known by what it asks, is dealt out once. The deal depends on the seed and on the
items' contents alone, not on their order in a file: items are ordered by a hash of both and dealt to test, select and
search in turn, so that an item more in the file moves at most one item over each border.
"""

import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from evomerge.errors import ConfigError
from evomerge.tasks.items import short_hash
from evomerge.tasks.scorers import Question
from evomerge.tasks.settings import Split, SplitSizes
from evomerge.tasks.templates import asked

PRIORITY: tuple[Split, ...] = ("test", "select", "search")
"""Who keeps an item that stands in the files of several splits: what the result rests on comes first."""

FIFTHS: Mapping[Split, int] = {"search": 2, "select": 1, "test": 2}
"""The shares of a file that is divided without sizes."""

MOST: Mapping[Split, int] = {"search": 200, "select": 200, "test": 500}
"""How many items a share has at most; who wants more says so."""


@dataclass(frozen=True, slots=True)
class Pool:
    """The questions of one file, and the splits that are made of it."""

    file: str
    splits: tuple[Split, ...]
    questions: Sequence[Question]


@dataclass(frozen=True, slots=True)
class Deal:
    """The questions of each split, and what a person should know about how they came about."""

    splits: Mapping[Split, tuple[Question, ...]]
    notes: tuple[str, ...]


def deal(pools: Iterable[Pool], sizes: SplitSizes, *, seed: int, task: str) -> Deal:
    """Deal the questions of all pools to their splits. Raises ConfigError, with file and numbers, for too few."""
    splits: dict[Split, tuple[Question, ...]] = {}
    notes: list[str] = []
    seen: set[str] = set()
    for pool in sorted(pools, key=lambda pool: min(map(PRIORITY.index, pool.splits))):
        fresh, repeated, elsewhere = _without_repeats(_ordered(pool.questions, seed), seen)
        notes += _notes(pool, task, repeated, elsewhere)
        try:
            wanted = split_sizes(len(fresh), pool.splits, sizes)
        except ValueError as error:
            left_out = repeated + elsewhere
            found = f"{len(fresh)} different items" + (f" (and {left_out} repeated)" if left_out else "")
            raise ConfigError(f"task {task!r}: {pool.file} has {found}, and {error}") from None
        dealt = iter(fresh.values())
        for split in PRIORITY:
            if split in wanted:
                splits[split] = tuple(itertools.islice(dealt, wanted[split]))
        seen |= fresh.keys()
    return Deal(splits, tuple(notes))


def split_sizes(count: int, splits: Sequence[Split], sizes: SplitSizes) -> dict[Split, int]:
    """Return how many of `count` items each of `splits` gets. Raises ValueError, with what is wanted, for too few.

    A split alone, and without a size, gets all; otherwise splits without a size share what the others leave.
    """
    given: dict[Split, int] = {split: size for split in splits if (size := sizes.of(split)) is not None}
    open_splits: list[Split] = [split for split in splits if split not in given]
    rest = count - sum(given.values())
    if rest < len(open_splits):
        words = ", ".join(f"{split} {given.get(split, 'at least 1')}" for split in splits)
        wanted = sum(given.values()) + len(open_splits)
        raise ValueError(f"{wanted} are needed ({words}); add items, or lower `splits`")
    if len(splits) == 1 and not given:
        return {splits[0]: count}
    fifths = sum(FIFTHS[split] for split in open_splits)
    shares: dict[Split, int] = {
        split: min(max(rest * FIFTHS[split] // fifths, 1), MOST[split]) for split in open_splits
    }
    return given | shares


def _ordered(questions: Iterable[Question], seed: int) -> list[Question]:
    return sorted(questions, key=lambda question: hashlib.sha256(f"{seed}/{question.item.id}".encode()).digest())


def _without_repeats(questions: Iterable[Question], elsewhere: set[str]) -> tuple[dict[str, Question], int, int]:
    """Return the new questions, by what they ask, and how many repeat one of these, or one of `elsewhere`."""
    fresh: dict[str, Question] = {}
    repeated = known = 0
    for question in questions:
        key = short_hash(asked(question))
        if key in elsewhere:
            known += 1
        elif key in fresh:
            repeated += 1
        else:
            fresh[key] = question
    return fresh, repeated, known


def _notes(pool: Pool, task: str, repeated: int, elsewhere: int) -> Iterable[str]:
    where = f"task {task!r}: {pool.file}"
    if repeated:
        yield f"{where}: left out {_items(repeated)} asking what another one there asks"
    if elsewhere:
        others = "test" if "select" in pool.splits else "test or select"
        yield f"{where}: left out {_items(elsewhere)} asking what one in the file of {others} asks"


def _items(count: int) -> str:
    return "1 item" if count == 1 else f"{count} items"
