"""The command line as a whole: its words, exit codes, help, and what it does not load."""

import subprocess
import sys
from pathlib import Path

import pytest

from evomerge.cli.main import app, run
from evomerge.errors import EvomergeError, StudyLocked
from evomerge.study import status
from tests.cli.conftest import Command

COMMANDS = ("init", "run", "check", "status", "clean", "merge", "eval", "export", "unpack", "methods", "schema")


def test_without_words_the_help_is_shown_and_the_exit_code_is_that_of_usage(command: Command) -> None:
    done = command()
    assert done.code == 2
    assert "Usage: evomerge" in done.out + done.err
    assert "evomerge init --help" in done.out + done.err


def test_help_lists_every_command(command: Command) -> None:
    done = command("--help")
    assert done.code == 0
    assert {name for name in COMMANDS if f" {name} " in done.out} == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_has_an_example_of_words_that_it_takes(name: str, command: Command) -> None:
    done = command(name, "-h")
    assert done.code == 0
    [registered] = [c for c in app.registered_commands if name in (c.name, getattr(c.callback, "__name__", ""))]
    assert registered.epilog is not None
    assert registered.epilog.startswith(f"Example: evomerge {name}")
    assert "Example: evomerge" in done.out
    words = [word for word in registered.epilog.split() if word.startswith("--")]
    assert all(word in done.out for word in words)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["bogus"], "No such command 'bogus' (see `evomerge --help`)"),
        (["statsu"], "Did you mean 'status'?"),
        (["--nope"], "No such option: --nope (see `evomerge --help`)"),
        (["run"], "Missing argument 'JOB' (see `evomerge run --help`)"),
        (["run", "job.yaml", "--trails", "3"], "No such option: --trails"),
        (["init", "a", "--data", "b", "--trails", "3"], "--trials"),
        (["check", "job.yaml", "--try", "many"], "--try"),
        (["export", "study"], "Missing argument 'OUT'"),
    ],
)
def test_wrong_words_end_with_2_and_one_line_that_says_where_to_look(
    words: list[str], sentence: str, command: Command
) -> None:
    done = command(*words)
    assert (done.code, done.out) == (2, "")
    assert sentence in done.err
    assert done.err.startswith("evomerge: ")
    assert done.err.count("\n") == 1


def test_the_version_is_shown(command: Command) -> None:
    done = command("--version")
    assert (done.code, done.out.split()[0]) == (0, "evomerge")


@pytest.mark.parametrize(
    ("error", "code"),
    [(StudyLocked("wait for it"), 73), (EvomergeError("so it is"), 70), (KeyboardInterrupt(), 130)],
)
def test_what_is_raised_decides_the_exit_code(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    def fail(folder: Path) -> None:
        raise error

    monkeypatch.setattr(status, "read_status", fail)
    done = command("status", "somewhere")
    assert done.code == code
    assert done.err.strip() == (f"evomerge: {error}" if str(error) else "")


def test_a_defect_is_a_sentence_and_its_traceback_is_there_for_who_asks(
    monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    def fail(folder: Path) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(status, "read_status", fail)
    done = command("status", "somewhere")
    assert done.code == 70
    assert done.err.startswith("evomerge: internal error: ZeroDivisionError: oh; please report it")
    assert "Traceback" not in done.err
    monkeypatch.setenv("EVOMERGE_DEBUG", "1")
    assert "Traceback" in command("status", "somewhere").err


def test_a_reader_that_has_gone_is_no_error_to_talk_about() -> None:
    code = "import sys; sys.stdin.read(1)\nfrom evomerge.cli.main import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "schema"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.close()  # before a word is printed
        process.stdout = None
        assert process.communicate() == (None, b"")
    assert process.returncode == 1


def test_what_needs_no_models_loads_no_heavy_library(tmp_path: Path) -> None:
    heavy = ("torch", "transformers", "nevergrad", "numpy", "matplotlib", "peft", "safetensors", "huggingface_hub")
    words = [["--help"], ["--version"], ["methods"], ["methods", "ties"], ["schema"], ["status", str(tmp_path)]]
    words += [[name, "--help"] for name in COMMANDS] + [["run", str(tmp_path / "nope.yaml")]]
    code = f"""
import sys
from evomerge.cli.main import run
for words in {words!r}:
    run(words)
    assert sys.modules.keys().isdisjoint({heavy!r}), words
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_run_can_be_called_again_and_again() -> None:
    assert [run(["methods", "nope"]), run(["methods", "ties"])] == [78, 0]
