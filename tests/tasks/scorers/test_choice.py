import math
from collections.abc import Callable
from pathlib import Path

import pytest

from evomerge.errors import BackendError, CandidateError
from evomerge.tasks import ScorerSettings

Worth = Callable[..., float]
THREE = ("red", "green", "blue")


def test_the_likeliest_choice_counts(worth: Worth) -> None:
    assert worth("choice", [(-3, 1), (-1, 1), (-2, 1)], "green", choices=THREE) == 1
    assert worth("choice", [(-3, 1), (-1, 1), (-2, 1)], "blue", choices=THREE) == 0


def test_of_equally_likely_choices_the_first_counts(worth: Worth) -> None:
    assert worth("choice", [(-2, 1), (-1, 1), (-1, 1)], "green", choices=THREE) == 1
    assert worth("choice", [(-2, 1), (-1, 1), (-1, 1)], "blue", choices=THREE) == 0


def test_a_long_choice_can_be_judged_by_its_length(worth: Worth) -> None:
    choices, answer = ("no", "a very long choice"), [(-2.0, 1), (-5.0, 5)]
    assert worth("choice", answer, "no", choices=choices) == 1
    assert worth({"choice": {"normalize": "tokens"}}, answer, "no", choices=choices) == 0
    assert worth({"choice": {"normalize": "characters"}}, answer, "no", choices=choices) == 0
    assert worth({"choice": {"normalize": "tokens"}}, [(-0.5, 1), (-5.0, 5)], "no", choices=choices) == 1


def test_likelihood_is_the_mean_over_tokens_in_nats(worth: Worth) -> None:
    assert worth("likelihood", [(-6.0, 4)], "five") == -1.5
    assert worth("likelihood", [(-6.0, 4), (-1.0, 2)], "five", "5") == -0.5


def test_as_a_probability_an_answer_that_is_surely_wrong_counts_nothing(worth: Worth) -> None:
    spec = {"likelihood": {"scale": "probability"}}
    assert worth(spec, [(-6.0, 4)], "five") == pytest.approx(math.exp(-1.5))
    assert worth(spec, [(-6.0, 4), (-1.0, 2)], "five", "5") == pytest.approx(math.exp(-0.5))
    assert worth(spec, [(-4000.0, 4)], "five") == 0
    assert worth(spec, [(1e-9, 1)], "five") == 1
    assert ScorerSettings.model_validate(spec).make(Path()).unit == "share"
    assert ScorerSettings.model_validate("likelihood").make(Path()).unit == "nats"


@pytest.mark.parametrize("number", [math.nan, -math.inf, math.inf])
@pytest.mark.parametrize("spec", ["choice", "likelihood"])
def test_a_likelihood_that_is_no_number_is_the_candidates_fault(worth: Worth, spec: str, number: float) -> None:
    with pytest.raises(CandidateError, match=r"data\.jsonl:3: .*weights are broken"):
        worth(spec, [(-1, 1), (number, 1)], "red", "green", choices=("red", "green"))


@pytest.mark.parametrize("spec", ["choice", "likelihood"])
@pytest.mark.parametrize("answer", [[], [(-1.0, 1)], [(-1.0, 1), (0.0, 0)]])
def test_an_answer_to_something_else_is_the_backends_fault(
    worth: Worth, spec: str, answer: list[tuple[float, int]]
) -> None:
    with pytest.raises(BackendError, match="was asked for 2"):
        worth(spec, answer, "red", "green", choices=("red", "green"))
