"""What a refusal looks like: one sentence, an exit code that says what kind it is, and nothing more."""

from collections.abc import Callable

from tests.support.commands import Done

Refused = Callable[..., str]
CONFIGURATION, LOCKED, INTERNAL = 78, 73, 70


def check_refusal(done: Done, code: int) -> str:
    """Return the one sentence of a refusal."""
    assert done.code == code, done
    assert done.out == ""
    assert done.err.startswith("evomerge: ")
    assert done.err.count("\n") == 1
    assert "Traceback" not in done.err
    assert "internal error" not in done.err
    return done.err.removeprefix("evomerge: ").rstrip("\n")
