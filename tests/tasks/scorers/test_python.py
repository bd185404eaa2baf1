import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from evomerge.errors import ConfigError
from evomerge.tasks import ScorerSettings

Worth = Callable[..., float]
Write = Callable[..., Path]
SPEC = {"python": "judge:score"}


@pytest.fixture(autouse=True)
def same_modules_and_path_after() -> Iterator[None]:
    """A scorer leaves the path as it was; the modules it brought are forgotten here, so that tests do not meet."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    assert sys.path == path
    for name in set(sys.modules) - modules:
        if name.split(".")[0] in {"judge", "mine", "beside"}:
            del sys.modules[name]


def test_a_function_gets_fields_reference_and_text(worth: Worth, write: Write) -> None:
    write("judge.py", "def score(item, reference, text):\n    return item['n'] / 4 if text == reference else 0\n")
    assert worth(SPEC, "yes", "yes", n=3) == 0.75
    assert worth(SPEC, "no", "yes", n=3) == 0
    assert worth(SPEC, "yes", "no", "yes", n=3) == 0.75


def test_a_function_needs_no_reference(worth: Worth, write: Write, tmp_path: Path) -> None:
    write("judge.py", "def score(item, reference, text):\n    return reference is None\n")
    assert worth(SPEC, "yes") == 1
    assert ScorerSettings.model_validate(SPEC).make(tmp_path).needs_reference is False


def test_modules_in_folders_and_imports_between_them_work(worth: Worth, write: Write) -> None:
    write("mine/deep/judge.py", "from beside import half\ndef score(item, reference, text):\n    return half\n")
    write("beside.py", "half = 0.5\n")
    assert worth({"python": "mine.deep.judge:score"}, "yes") == 0.5


def test_two_jobs_may_name_their_modules_alike(tmp_path: Path, worth: Worth, write: Write) -> None:
    write("judge.py", "def score(item, reference, text):\n    return 1\n")
    assert worth(SPEC, "") == 1
    other = tmp_path / "other"
    other.mkdir()
    (other / "judge.py").write_text("def score(item, reference, text):\n    return 0\n")
    first = ScorerSettings.model_validate(SPEC).make(tmp_path)
    second = ScorerSettings.model_validate(SPEC).make(other)
    assert first.code != second.code
    assert second.function({}, None, "") == 0  # pyright: ignore[reportAttributeAccessIssue]  # the class is python's


def test_a_function_cannot_change_the_item(worth: Worth, write: Write) -> None:
    write(
        "judge.py",
        "def score(item, reference, text):\n    item['tags'].append(text)\n    return len(item['tags']) / 4\n",
    )
    tags = ["a"]
    assert worth(SPEC, "b", "x", "y", tags=tags) == 0.5
    assert tags == ["a"]


@pytest.mark.parametrize(
    "value", ["True", "1", "1.0", "__import__('numpy').float32(1)", "__import__('numpy').bool_(True)"]
)
def test_any_number_from_0_to_1_will_do(worth: Worth, write: Write, value: str) -> None:
    write("judge.py", f"def score(item, reference, text):\n    return {value}\n")
    assert worth(SPEC, "") == 1


@pytest.mark.parametrize("value", ["1.5", "-0.1", "float('nan')", "None", "'1'", "[1]"])
def test_anything_else_is_one_sentence_with_function_and_item(worth: Worth, write: Write, value: str) -> None:
    write("judge.py", f"def score(item, reference, text):\n    return {value}\n")
    with pytest.raises(
        ConfigError, match=r"^judge:score returned .* at data\.jsonl:3; a score is a number from 0 to 1$"
    ):
        worth(SPEC, "")


def test_a_function_that_raises_is_one_sentence_with_function_and_item(worth: Worth, write: Write) -> None:
    write("judge.py", "def score(item, reference, text):\n    return item['gone']\n")
    with pytest.raises(ConfigError, match=r"^judge:score raised KeyError at data\.jsonl:3: 'gone'$"):
        worth(SPEC, "")


def test_an_async_function_is_refused(worth: Worth, write: Write) -> None:
    write("judge.py", "async def score(item, reference, text):\n    return 1\n")
    with pytest.raises(ConfigError, match="async"):
        worth(SPEC, "")


@pytest.mark.parametrize(
    ("function", "content", "words"),
    [
        ("gone:score", "", "gone:score cannot be imported from .*ModuleNotFoundError"),
        ("judge:score", "1 / 0", "judge:score cannot be imported from .*ZeroDivisionError"),
        ("judge:score", "def (", "judge:score cannot be imported from .*SyntaxError"),
        ("judge:score", "other = 1", "there is no function 'score' in .*judge.py"),
        ("judge:score", "score = 1", "judge:score is no function, but of type int"),
    ],
)
def test_a_function_that_is_not_there_is_refused(
    write: Write, tmp_path: Path, function: str, content: str, words: str
) -> None:
    write("judge.py", content)
    with pytest.raises(ConfigError, match=words):
        ScorerSettings.model_validate({"python": function}).make(tmp_path)


@pytest.mark.parametrize(
    "function", ["judge", "judge.score", "judge:", ":score", "../judge:score", "a b:score", "judge:a.b"]
)
def test_a_name_that_is_no_function_is_refused_when_the_job_is_read(function: str) -> None:
    with pytest.raises(ValueError, match=r"names no function; write module and function as my\.module:score"):
        ScorerSettings.model_validate({"python": function})
