import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.errors import ConfigError
from evomerge.tasks import SPLITS, Split, SplitSizes, Task, TaskSettings, load_task
from evomerge.tasks.splits import MOST, split_sizes

Write = Callable[..., Path]
Load = Callable[..., Task]


def rows(*numbers: int) -> list[dict[str, Any]]:
    return [{"question": f"{number} + {number} =", "answer": str(2 * number)} for number in numbers]


def asked(task: Task, split: Split) -> list[str]:
    return [item.fields["question"] for item in task.items(split)]


def all_asked(task: Task) -> list[str]:
    return [question for split in SPLITS for question in asked(task, split)]


def split_folder(folder: Path, items: list[dict[str, Any]], sizes: dict[str, int], seed: int) -> Task:
    (folder / "data.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    parsed = TaskSettings.model_validate(
        {"name": "sums", "data": "data.jsonl", "prompt": "{{question}}", "score": "exact", "splits": sizes}
    )
    return load_task(parsed, folder, seed)


wanted = st.fixed_dictionaries(dict.fromkeys(SPLITS, st.integers(1, 8)))


@given(
    numbers=st.lists(st.integers(0, 60), min_size=30, max_size=60), sizes=wanted, seed=st.integers(0, 3), data=st.data()
)
@settings(deadline=None, max_examples=60)
def test_splits_are_disjoint_of_the_sizes_asked_and_whatever_the_order(
    numbers: list[int], sizes: dict[str, int], seed: int, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("splits")
    if len(set(numbers)) < sum(sizes.values()):
        with pytest.raises(ConfigError, match="are needed"):
            split_folder(folder, rows(*numbers), sizes, seed)
        return
    task = split_folder(folder, rows(*numbers), sizes, seed)
    assert {split: len(asked(task, split)) for split in SPLITS} == sizes
    assert len(set(all_asked(task))) == sum(sizes.values())
    shuffled = split_folder(folder, rows(*data.draw(st.permutations(numbers))), sizes, seed)
    assert [asked(shuffled, split) for split in SPLITS] == [asked(task, split) for split in SPLITS]
    assert shuffled.fingerprint == task.fingerprint


@given(count=st.integers(24, 60), more=st.integers(1, 10), sizes=wanted)
@settings(deadline=None, max_examples=60)
def test_items_added_to_the_file_move_at_most_as_many_over_each_border(
    count: int, more: int, sizes: dict[str, int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("splits")
    before = split_folder(folder, rows(*range(count)), sizes, 7)
    after = split_folder(folder, rows(*range(count + more)), sizes, 7)
    for split in SPLITS:
        assert len(set(asked(before, split)) - set(asked(after, split))) <= more
    assert set(asked(after, "test")) <= set(asked(before, "test")) | {
        row["question"] for row in rows(*range(count, count + more))
    }


def test_another_seed_makes_other_splits(write: Write, load: Load) -> None:
    write("data.jsonl", rows(*range(50)))
    assert asked(load(seed=1), "test") != asked(load(seed=2), "test")
    assert asked(load(seed=1), "test") == asked(load(seed=1), "test")


def test_tasks_on_one_file_have_the_same_splits(write: Write, load: Load) -> None:
    write("data.jsonl", rows(*range(50)))
    ours, theirs = load(), load(name="other", prompt="Please: {{question}}", score="numeric")
    assert [ours.items(split) for split in SPLITS] == [theirs.items(split) for split in SPLITS]


def test_an_item_that_stands_twice_is_in_one_split_and_told(write: Write, load: Load) -> None:
    write("data.jsonl", [*rows(*range(10)), *rows(*range(10)), *rows(1)])
    task = load()
    assert len(all_asked(task)) == 10
    assert task.notes == ("task 'sums': data.jsonl: left out 11 items asking what another one there asks",)


def test_items_that_ask_the_same_are_one_item(write: Write, load: Load) -> None:
    write("data.jsonl", [{**row, "source": source} for row in rows(*range(10)) for source in "ab"])
    assert len(set(all_asked(load()))) == len(all_asked(load())) == 10


def test_the_same_prompt_with_other_choices_is_another_item(write: Write, load: Load) -> None:
    write("data.jsonl", [{"question": "which?", "choices": ["a", f"b{n}"], "answer": "a"} for n in range(10)])
    task = load(score="choice", choices="choices")
    assert sum(len(task.items(split)) for split in SPLITS) == 10


def test_a_file_for_each_split_is_used_whole(write: Write, load: Load) -> None:
    for split, numbers in zip(SPLITS, ((1, 2, 3), (4, 5), (6,)), strict=True):
        write(f"{split}.jsonl", rows(*numbers))
    task = load(data={split: f"{split}.jsonl" for split in SPLITS})
    assert [len(task.items(split)) for split in SPLITS] == [3, 2, 1]
    assert task.notes == ()


def test_an_item_in_several_files_stays_in_test_before_select_before_search(write: Write, load: Load) -> None:
    write("search.jsonl", rows(1, 2, 3, 4, 9))
    write("select.csv", "question,answer\n2 + 2 =,4\n3 + 3 =,6\n8 + 8 =,16\n")
    write("test.jsonl", rows(3, 4, 7))
    task = load(data={"search": "search.jsonl", "select": "select.csv", "test": "./test.jsonl"})
    assert {split: set(asked(task, split)) for split in SPLITS} == {
        "search": {"1 + 1 =", "9 + 9 ="},
        "select": {"2 + 2 =", "8 + 8 ="},
        "test": {"3 + 3 =", "4 + 4 =", "7 + 7 ="},
    }
    assert task.notes == (
        "task 'sums': select.csv: left out 1 item asking what one in the file of test asks",
        "task 'sums': search.jsonl: left out 3 items asking what one in the file of test or select asks",
    )


def test_two_splits_may_share_a_file(write: Write, load: Load) -> None:
    write("train.jsonl", rows(*range(30)))
    write("test.jsonl", rows(*range(25, 50)))
    task = load(data={"search": "train.jsonl", "select": "./train.jsonl", "test": "test.jsonl"})
    assert [len(task.items(split)) for split in SPLITS] == [16, 8, 25]
    assert len(set(all_asked(task))) == 49


def test_sizes_say_how_many_of_each_file_are_used(write: Write, load: Load) -> None:
    write("a.jsonl", rows(*range(30)))
    write("b.jsonl", rows(*range(50, 80)))
    files = {"search": "a.jsonl", "select": "a.jsonl", "test": "b.jsonl"}
    task = load(data=files, splits={"test": 4}, default_sizes=SplitSizes(search=5, select=6, test=7))
    assert [len(task.items(split)) for split in SPLITS] == [5, 6, 4]


def test_too_few_items_are_refused_with_numbers_and_the_fix(write: Write, load: Load) -> None:
    write("data.jsonl", [*rows(*range(50)), *rows(3)])
    with pytest.raises(ConfigError) as caught:
        load(splits={"search": 30, "test": 40})
    assert str(caught.value) == (
        "task 'sums': data.jsonl has 50 different items (and 1 repeated), and 71 are needed "
        "(search 30, select at least 1, test 40); add items, or lower `splits`"
    )


def test_a_file_with_nothing_of_its_own_is_refused(write: Write, load: Load) -> None:
    write("a.jsonl", rows(*range(5)))
    write("b.jsonl", rows(*range(5)))
    with pytest.raises(ConfigError, match=r"a\.jsonl has 0 different items \(and 5 repeated\), and 1 are needed"):
        load(data={"search": "a.jsonl", "select": "b.jsonl", "test": "b.jsonl"})


@given(count=st.integers(3, 5000), sizes=st.fixed_dictionaries({}, optional=dict.fromkeys(SPLITS, st.integers(1, 50))))
def test_sizes_left_out_share_the_rest(count: int, sizes: dict[str, int]) -> None:
    given_sizes = SplitSizes.model_validate(sizes)
    if count < sum(sizes.values()) + 3 - len(sizes):
        with pytest.raises(ValueError, match="are needed"):
            split_sizes(count, SPLITS, given_sizes)
        return
    found = split_sizes(count, SPLITS, given_sizes)
    assert sum(found.values()) <= count
    for split in SPLITS:
        assert found[split] == sizes[split] if split in sizes else 1 <= found[split] <= MOST[split]


def test_without_sizes_the_shares_are_as_documented() -> None:
    sizes = SplitSizes()
    assert split_sizes(100, SPLITS, sizes) == {"search": 40, "select": 20, "test": 40}
    assert split_sizes(3, SPLITS, sizes) == {"search": 1, "select": 1, "test": 1}
    assert split_sizes(100_000, SPLITS, sizes) == {"search": 200, "select": 200, "test": 500}
    assert split_sizes(100, SPLITS, SplitSizes(search=70)) == {"search": 70, "select": 10, "test": 20}
    assert split_sizes(100_000, ("search",), sizes) == {"search": 100_000}
