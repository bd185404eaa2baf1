"""One process at a time works on a study."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from evomerge.errors import StudyLocked
from evomerge.study.lock import locked

HOLD = """
import sys
from pathlib import Path
from evomerge.study.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(folder: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_with_the_first_ones_number(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        with pytest.raises(StudyLocked, match=rf"process {process.pid}.*wait for it or stop it"), locked(tmp_path):
            pass
        process.communicate()


def test_the_lock_goes_with_the_process_however_it_ends(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        os.kill(process.pid, signal.SIGKILL)
    assert (tmp_path / "lock").exists()
    with locked(tmp_path):
        pass


def test_the_lock_can_be_taken_again(tmp_path: Path) -> None:
    for _ in range(2):
        with locked(tmp_path):
            assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
