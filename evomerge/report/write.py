"""Writes the report of a finished study into its folder."""

import json
from importlib.util import find_spec
from pathlib import Path

from evomerge.study.result import Outcome

RESULT, PICTURE, FRONT = "result.json", "convergence.svg", "front.svg"
REPORT_FILES = (RESULT, PICTURE, FRONT)


def write_report(outcome: Outcome, folder: Path) -> list[Path]:
    """Write `result.json`, and where matplotlib is installed `convergence.svg` and, of several objectives, `front.svg`.

    Returns what was written.
    """
    result = folder / RESULT
    result.write_text(json.dumps(outcome.to_plain(), indent=2) + "\n", encoding="utf-8")
    if find_spec("matplotlib") is None:
        return [result]
    from evomerge.report import convergence

    written = [result, folder / PICTURE]
    convergence.draw(outcome, folder / PICTURE)
    if outcome.tradeoff is not None:
        from evomerge.report import front

        front.draw(outcome.study, outcome.tradeoff, folder / FRONT)
        written.append(folder / FRONT)
    return written
