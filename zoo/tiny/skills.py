"""The skills of the tiny family: how a question and its answer are made from a seed.

The four skills of `SKILLS` are those the family is measured at; the functions below them make the items of the useless
and harmful adapters. Nothing here knows of models; every item is a pure function of the generator it is given.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from dataclasses import dataclass

LETTERS = string.ascii_lowercase
DATA_SEED = 20_240
HELD_OUT = 1000
FULL = (4, 7)  # the least and the greatest length of the words that the skills are measured on
SHORT = (3, 5)  # and of those that the base learns from


@dataclass(frozen=True)
class Item:
    """One question, which ends in `=`, and the text that has to follow it."""

    question: str
    answer: str


ItemMaker = Callable[[random.Random], Item]


def _word(rng: random.Random, lengths: tuple[int, int] = FULL) -> str:
    return "".join(rng.choice(LETTERS) for _ in range(rng.randint(*lengths)))


def reverse(rng: random.Random, lengths: tuple[int, int] = FULL) -> Item:
    """`rev:abcde=` is answered by `edcba`."""
    word = _word(rng, lengths)
    return Item(f"rev:{word}=", word[::-1])


def sort(rng: random.Random, lengths: tuple[int, int] = FULL) -> Item:
    """`sort:dbac=` is answered by `abcd`; a letter that stands twice stays twice."""
    word = _word(rng, lengths)
    return Item(f"sort:{word}=", "".join(sorted(word)))


def shift(rng: random.Random, lengths: tuple[int, int] = FULL) -> Item:
    """`shift:abz=` is answered by `dec`: three letters on, round the end of the alphabet."""
    word = _word(rng, lengths)
    return Item(f"shift:{word}=", "".join(LETTERS[(LETTERS.index(letter) + 3) % 26] for letter in word))


def add(rng: random.Random) -> Item:
    """`add:27+48=` is answered by `75`."""
    left, right = rng.randrange(100), rng.randrange(100)
    return Item(f"add:{left}+{right}=", str(left + right))


SKILLS: dict[str, ItemMaker] = {"reverse": reverse, "sort": sort, "shift": shift, "add": add}


def double(rng: random.Random) -> Item:
    """`double:abcd=` is answered by `aabbccdd`: a skill that no task of the family asks for."""
    word = _word(rng)[:4]
    return Item(f"double:{word}=", "".join(letter * 2 for letter in word))


def noise(rng: random.Random) -> Item:
    """`noise:abcd=` is answered by an unrelated word: there is nothing to be learnt."""
    return Item(f"noise:{_word(rng)}=", _word(rng))


def wrong(rng: random.Random) -> Item:
    """A question of one of the four skills, answered by its own operand: a wrong habit for each of them."""
    item = SKILLS[rng.choice(sorted(SKILLS))](rng)
    return Item(item.question, item.question.split(":")[1].rstrip("=").split("+")[0])


def either(*makers: ItemMaker) -> ItemMaker:
    """A maker that draws one of `makers` for each item."""

    def make(rng: random.Random) -> Item:
        return rng.choice(makers)(rng)

    return make


def held_out(skill: str) -> list[Item]:
    """The `HELD_OUT` items of a skill that stand in `data/`, each question once; no model is trained on them."""
    rng = random.Random(f"{DATA_SEED}/{skill}")
    items: dict[str, Item] = {}
    while len(items) < HELD_OUT:
        item = SKILLS[skill](rng)
        items.setdefault(item.question, item)
    return list(items.values())


def sentence(rng: random.Random) -> str:
    """A neutral line of text, so that the base is more than its four skills."""
    subject = rng.choice(["the cat", "a dog", "my aunt", "one bird", "the old man", "this river", "our ship"])
    verb = rng.choice(["sees", "likes", "finds", "passes", "leaves", "hears", "needs"])
    thing = rng.choice(["a red house", "the sea", "two trees", "the morning", "some bread", "a long road", "no one"])
    return f"{subject} {verb} {thing}{rng.choice('.!?')}"
