import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evomerge.errors import BackendError, ConfigError, SourceError
from evomerge.exchange import Answer, Failure, Generate, Judge, Likelihood, Sampling
from evomerge.tasks import SPLITS, Score, Task, TextScorer

ROOT = Path(__file__).resolve().parents[2]
Write = Callable[..., Path]
Load = Callable[..., Task]


@pytest.fixture(autouse=True)
def data(write: Write) -> None:
    write("data.jsonl", [{"question": f"{n} + {n} =", "answer": str(2 * n)} for n in range(20)])


def test_a_text_is_asked_for_with_the_tasks_sampling(load: Load) -> None:
    task = load(max_tokens=8, stop=["\n", ";"])
    item = task.items("search")[0]
    assert task.request(item, "search") == Generate(item.fields["question"], Sampling(max_tokens=8, stop=("\n", ";")))


def test_a_split_is_asked_by_its_own_scorer(load: Load) -> None:
    task = load(score="numeric", search_by={"likelihood": {"prefix": " "}})
    for split, kind, unit in zip(SPLITS, (Judge, Generate, Generate), ("nats", "share", "share"), strict=True):
        item = task.items(split)[0]
        assert isinstance(task.request(item, split), kind)
        assert task.unit(split) == unit
    item = task.items("search")[0]
    assert task.request(item, "search") == Judge(item.fields["question"], (" " + item.fields["answer"],))
    assert task.score(item, "search", Answer(likelihoods=(Likelihood(-3.0, 2),))) == Score(-1.5)
    item = task.items("test")[0]
    assert task.score(item, "test", Answer(text=f"= {item.fields['answer']}.")) == Score(1.0)


def test_a_missing_answer_has_no_score_and_an_empty_or_cut_one_has(load: Load) -> None:
    task = load()
    item = task.items("search")[0]
    failure = Failure("timeout", "no answer in 60 s")
    assert task.score(item, "search", Answer(failure=failure)) == Score(None, failure)
    assert task.score(item, "search", Answer(text=item.fields["answer"], failure=failure)).value is None
    assert task.score(item, "search", Answer(text="")) == Score(0.0)
    assert task.score(item, "search", Answer(text=item.fields["answer"], finish="length")) == Score(1.0)


def test_an_answer_without_text_or_failure_is_the_backends_fault(load: Load) -> None:
    task = load()
    with pytest.raises(BackendError, match="neither a text nor a failure"):
        task.score(task.items("search")[0], "search", Answer())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1.5, -0.5])
def test_a_scorer_that_gives_no_share_is_told_on(load: Load, tmp_path: Path, value: float) -> None:
    class Wrong(TextScorer):
        def compare(self, text: str, reference: str) -> float:
            del text, reference
            return value

    task = load()
    task = dataclasses.replace(task, scorers={**task.scorers, "test": Wrong(None, tmp_path)})
    with pytest.raises(
        ConfigError, match=r"task 'sums': the scorer gives .* at data\.jsonl:\d+; a score is from 0 to 1"
    ):
        task.score(task.items("test")[0], "test", Answer(text=""))


def test_an_item_of_another_split_is_not_answered_for(load: Load) -> None:
    task = load()
    with pytest.raises(KeyError):
        task.request(task.items("test")[0], "search")


def test_drawn_answers_have_a_seed_for_each_item_and_greedy_ones_none(load: Load) -> None:
    def seeds(task: Task) -> list[int | None]:
        requests = [task.request(item, "search") for item in task.items("search")]
        return [request.sampling.seed for request in requests if isinstance(request, Generate)]

    assert set(seeds(load())) == {None}
    drawn = seeds(load(temperature=0.7))
    assert len(set(drawn)) == len(drawn) == 8
    assert drawn == seeds(load(temperature=0.7))
    assert all(isinstance(seed, int) and 0 <= seed < 2**31 for seed in drawn)
    assert not set(drawn) & set(seeds(load(seed=1, temperature=0.7)))


def test_answers_can_be_counted_by_what_they_mean(load: Load) -> None:
    task = load(score="numeric")
    assert task.key("test", "it is 1,000") == task.key("test", "1e3")


@pytest.mark.parametrize(
    ("rows", "settings", "words"),
    [
        ([{"question": "q", "answer": "four"}], {"score": "numeric"}, "numeric: the reference 'four' holds no number"),
        ([{"question": "q", "answer": " "}], {"score": "contains"}, "contains: the reference is empty"),
        ([{"question": "q", "answer": ""}], {"score": "likelihood"}, "likelihood: the reference is empty"),
        ([{"question": "q", "answer": ""}], {"search_by": "likelihood"}, "likelihood: the reference is empty"),
        (
            [{"question": "q", "answer": 1, "choices": ["yes", "no"]}],
            {"score": "choice", "choices": "choices"},
            "the reference '1' is none of the choices ('yes', 'no'); where it is a position",
        ),
        (
            [{"question": "q", "answer": "yes", "choices": ["yes"]}],
            {"score": "choice", "choices": "choices"},
            "at least two choices, and there are 1",
        ),
        (
            [{"question": "q", "answer": "yes", "choices": ["yes", ""]}],
            {"score": "choice", "choices": "choices"},
            "choice 2 is empty",
        ),
    ],
)
def test_an_item_that_its_scorer_cannot_use_is_refused_before_anything_is_asked(
    write: Write, load: Load, rows: list[dict[str, Any]], settings: dict[str, Any], words: str
) -> None:
    write("data.jsonl", [{**row, "question": f"q{n}"} for n in range(3) for row in rows])
    with pytest.raises(SourceError) as caught:
        load(**settings)
    assert str(caught.value).startswith("task 'sums': data.jsonl:")
    assert words in str(caught.value)


def test_choice_without_choices_is_refused(load: Load) -> None:
    with pytest.raises(ConfigError, match="task 'sums': the scorer choice needs choices"):
        load(score="choice")


def test_what_is_wrong_with_a_file_or_function_names_the_task(write: Write, load: Load) -> None:
    write("broken.jsonl", "{\n")
    with pytest.raises(SourceError, match=r"^task 'sums': broken\.jsonl:1: this is not JSON"):
        load(data="broken.jsonl")
    with pytest.raises(ConfigError, match=r"^task 'sums': gone:score cannot be imported"):
        load(score={"python": "gone:score"})


def test_the_fingerprint_changes_with_what_changes_scores_and_with_nothing_else(
    tmp_path: Path, write: Write, load: Load
) -> None:
    write("judge.py", "def score(item, reference, text):\n    return 1\n")
    base = load().fingerprint
    (tmp_path / "moved.jsonl").write_bytes((tmp_path / "data.jsonl").read_bytes())
    reversed_lines = (tmp_path / "data.jsonl").read_text().splitlines()[::-1]
    (tmp_path / "reversed.jsonl").write_text("\n".join(reversed_lines))
    same = [
        load(), load(data="moved.jsonl"), load(data="reversed.jsonl"), load(reference="{{answer}}"), load(weight=1),
        load(score={"exact": {"strip": True}}), load(splits={"search": 8, "select": 4, "test": 8}),
    ]  # fmt: skip
    assert {task.fingerprint for task in same} == {base}
    others = [
        load(seed=1), load(name="other"), load(weight=2), load(max_tokens=5), load(temperature=1), load(stop=["\n"]),
        load(prompt="{{question}} "), load(reference="{{answer}}."), load(score="numeric"), load(search_by="numeric"),
        load(score={"exact": {"lowercase": True}}), load(splits={"test": 3}), load(score={"python": "judge:score"}),
    ]  # fmt: skip
    assert len({base, *(task.fingerprint for task in others)}) == len(others) + 1


def test_the_fingerprint_changes_with_a_persons_own_code(write: Write, load: Load) -> None:
    write("judge.py", "def score(item, reference, text):\n    return 1\n")
    before = load(score={"python": "judge:score"}).fingerprint
    write("judge.py", "def score(item, reference, text):\n    return 0.5\n")
    assert load(score={"python": "judge:score"}).fingerprint != before


def test_a_task_is_frozen(load: Load) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        load().name = "other"  # pyright: ignore[reportAttributeAccessIssue]


def test_importing_tasks_loads_nothing_heavy() -> None:
    heavy = {"jinja2", "torch", "transformers", "numpy", "nevergrad"}
    code = f"import sys, evomerge.tasks; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_every_public_name_is_there() -> None:
    import evomerge.tasks

    assert all(hasattr(evomerge.tasks, name) for name in evomerge.tasks.__all__)
