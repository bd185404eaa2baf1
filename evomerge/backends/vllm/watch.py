"""The leader of a vLLM server's process group, which ends it: when its parent is gone, when asked, when vLLM ended.

A program of its own, run by path and on the standard library alone: `watch.py SECONDS COMMAND...` with a pipe as
standard input that nobody writes to. When the pipe is closed (a parent that is killed closes it as well) or SIGTERM
comes, the group gets SIGTERM, after SECONDS SIGKILL. It ends with the exit code of what it started, or 128 + the signal
that ended that. Where it is itself killed, so is vLLM's first process; the rest is then left to whoever holds the other
end of the pipe.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG = 1
PAUSE = 0.05


def members(group: int) -> list[int]:
    """Return the processes of a group that still run, in no order; one that only waits to be reaped does not."""
    found: list[int] = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                state, _parent, its_group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
                if int(its_group) == group and state not in {"Z", "X"}:
                    found.append(int(folder.name))
    return found


def signal_all(processes: Iterable[int], number: int) -> None:
    """Send a signal to those of the processes that are still there."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, number)


def _started(command: list[str]) -> subprocess.Popen[bytes]:
    libc, us = ctypes.CDLL(None, use_errno=True), os.getpid()

    def dies_with_us() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != us:
            os._exit(1)

    return subprocess.Popen(  # noqa: S603 - what to run is what we are told to run
        command,
        stdin=subprocess.DEVNULL,
        preexec_fn=dies_with_us,  # noqa: PLW1509 - there is one thread
    )


def _wait(child: subprocess.Popen[bytes], woken: int) -> None:
    """Return when the parent is gone, a signal asks to end, or the child has ended."""
    asked = False

    def ask(*_: object) -> None:
        nonlocal asked
        asked = True

    def wake(*_: object) -> None:
        """Do nothing: that the signal came is told by the pipe that it writes to."""

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)
    signal.signal(signal.SIGCHLD, wake)
    while not asked and child.poll() is None:
        readable, _, _ = select.select([0, woken], [], [])
        if 0 in readable and not os.read(0, 1):
            return
        if woken in readable:
            os.read(woken, 512)


def _end(child: subprocess.Popen[bytes], seconds: float) -> None:
    us = os.getpid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal_all((process for process in members(us) if process != us), signal.SIGTERM)
    last = time.monotonic() + seconds
    while others := [process for process in members(us) if process != us]:
        if time.monotonic() > last:
            signal_all(others, signal.SIGKILL)
        time.sleep(PAUSE)
        child.poll()


def main(words: list[str]) -> int:
    """Run the command until it is over, and return the exit code to end with."""
    seconds, command = float(words[0]), words[1:]
    woken, wake = os.pipe()
    for end in (woken, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    child = _started(command)
    _wait(child, woken)
    _end(child, seconds)
    code = child.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
