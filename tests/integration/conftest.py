"""A folder of one's own, and commands that have to refuse what is in it."""

from pathlib import Path

import pytest

from tests.support.commands import call, everything_in
from tests.support.place import family, place
from tests.support.refusals import CONFIGURATION, Refused, check_refusal

__all__ = ["family", "place", "refused"]


@pytest.fixture
def refused(place: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run a command that has to refuse, and return its sentence; nothing may be written."""

    def run(*words: object, code: int = CONFIGURATION) -> str:
        before = everything_in(place)
        done = call(capsys, *map(str, words))
        assert everything_in(place) == before
        return check_refusal(done, code)

    return run
