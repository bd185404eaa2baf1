"""Stopping by signals, in a process of its own."""

import subprocess
import sys

CODE = """
import asyncio, os, signal
from evomerge.study.limits import Stop, stopped_by_signals

async def work() -> None:
    stop = Stop()
    with stopped_by_signals(stop, lambda: print("left as it was", flush=True)):
        for number in {signals}:
            os.kill(os.getpid(), number)
            await stop.wait()
        if len({signals}) > 1:
            await asyncio.Event().wait()
        print(stop.reason, flush=True)

asyncio.run(work())
"""


def sent(*signals: str) -> tuple[int, str]:
    listed = f"[{', '.join(f'signal.{name}' for name in signals)}]"
    done = subprocess.run(
        [sys.executable, "-c", CODE.replace("{signals}", listed)], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout


def test_a_first_signal_asks_to_stop() -> None:
    assert sent("SIGINT") == (0, "interrupted\n")
    assert sent("SIGTERM") == (0, "asked to stop\n")


def test_a_second_signal_ends_the_process_and_leaves_the_terminal_as_it_was() -> None:
    assert sent("SIGINT", "SIGINT") == (130, "left as it was\n")
    assert sent("SIGINT", "SIGTERM") == (143, "left as it was\n")
