"""Makes the items of the five skills with the third-party generator `reasoning-gym`, offline and from fixed seeds.

`data/<skill>.jsonl` holds the items a search may be judged by, one {"question", "answer"} a line; `training_items`
makes the items the adapters are trained on. Within a skill every question stands once, and no question is in both.
The words are the generator's own: nothing here rewrites a question or an answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

HERE = Path(__file__).resolve().parent
DATA_SEED, TRAINING_SEED = 20_250, 73
ITEMS_PER_SKILL = 700
GENERATED_AT_ONCE = 1000


@dataclass(frozen=True)
class Item:
    """One question and the one answer that counts as right."""

    question: str
    answer: str


@dataclass(frozen=True)
class Skill:
    """The settings that keep the items of a generator short; lengths are in characters."""

    settings: Mapping[str, int]
    longest_question: int = 200
    longest_answer: int = 40


SKILLS: dict[str, Skill] = {
    "chain_sum": Skill({"min_terms": 2, "max_terms": 2, "min_digits": 2, "max_digits": 2}),
    "family_relationships": Skill({"max_family_size": 4}, longest_question=230),
    "needle_haystack": Skill({"min_num_statements": 2, "max_num_statements": 3}),
    "number_filtering": Skill({"min_numbers": 3, "max_numbers": 3, "max_decimals": 0, "min_value": 0, "max_value": 99}),
    "word_sequence_reversal": Skill({"min_words": 3, "max_words": 3}, longest_question=170),
}


def data_path(skill: str) -> Path:
    """Where the committed items of `skill` are."""
    return HERE / "data" / f"{skill}.jsonl"


def read_items(skill: str) -> list[Item]:
    """The committed items of `skill`, in the order of the file."""
    lines = data_path(skill).read_text(encoding="utf-8").splitlines()
    return [Item(**json.loads(line)) for line in lines]


def generate(name: str, seed: int) -> Iterator[Item]:
    """Items of the generator `name` without end, in an order decided by `seed`; questions may come again."""
    import reasoning_gym  # pyright: ignore[reportMissingImports] only who makes items needs it

    skill = SKILLS[name]
    while True:
        dataset = cast("Any", reasoning_gym).create_dataset(name, seed=seed, size=GENERATED_AT_ONCE, **skill.settings)
        for index in range(GENERATED_AT_ONCE):
            entry: dict[str, str] = dataset[index]
            item = Item(entry["question"].strip(), entry["answer"].strip())
            if len(item.question) <= skill.longest_question and 0 < len(item.answer) <= skill.longest_answer:
                yield item
        seed += GENERATED_AT_ONCE  # an entry's own seed is seed + index


def first_unique(items: Iterator[Item], count: int, seen: set[str]) -> list[Item]:
    """The next `count` items whose questions are not in `seen`; adds them to `seen`."""
    chosen: list[Item] = []
    for item in items:
        if item.question not in seen:
            seen.add(item.question)
            chosen.append(item)
            if len(chosen) == count:
                break
    return chosen


def training_items(name: str, count: int) -> list[Item]:
    """`count` items of the skill `name` for training: all different, and none of them in the committed file."""
    seen = {item.question for item in read_items(name)}
    return first_unique(generate(name, TRAINING_SEED), count, seen)


def main() -> None:
    """Writes data/<skill>.jsonl for every skill."""
    for name in SKILLS:
        chosen = first_unique(generate(name, DATA_SEED), ITEMS_PER_SKILL, set())
        path = data_path(name)
        path.parent.mkdir(exist_ok=True)
        lines = [json.dumps({"question": item.question, "answer": item.answer}) + "\n" for item in chosen]
        path.write_text("".join(lines), encoding="utf-8")
        print(f"{path.name}: {len(chosen)} items")


if __name__ == "__main__":
    main()
