"""Writes the report of a finished study into its folder."""

import json
from importlib.util import find_spec
from pathlib import Path

from evomerge.study.result import Outcome

RESULT, PICTURE = "result.json", "convergence.svg"
REPORT_FILES = (RESULT, PICTURE)


def write_report(outcome: Outcome, folder: Path) -> list[Path]:
    """Write `result.json`, and `convergence.svg` where matplotlib is installed; return what was written."""
    result = folder / RESULT
    result.write_text(json.dumps(outcome.to_plain(), indent=2) + "\n", encoding="utf-8")
    if find_spec("matplotlib") is None:
        return [result]
    from evomerge.report.convergence import draw

    picture = folder / PICTURE
    draw(outcome, picture)
    return [result, picture]
