"""Writes docs/reference.md and docs/methods.md from the code: settings, scorers, strategies, commands, errors, methods.

`make docs` writes them, `python docs/generate.py --check` fails where a committed page is not what the code says.
Nothing is described here that has a description of its own where it is defined.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from generator.commands import command_sections
from generator.methods import combiner_sections, method_sections
from generator.python import error_sections, python_section
from generator.settings import job_sections, scorer_sections, strategy_section, values_section

FOLDER = Path(__file__).resolve().parent

GENERATED = "<!-- Written by docs/generate.py from the code: `make docs` renews it, and a test compares. -->"


def reference_page() -> str:
    """The whole of reference.md."""
    parts = [
        GENERATED,
        "# Reference",
        "Every setting, scorer, strategy, command and error of this version. Merge methods have a page of their own: "
        "[methods](methods.md). How it all fits together stands in the [guide](guide.md).",
        *job_sections(),
        values_section(),
        *scorer_sections(),
        strategy_section(),
        *command_sections(),
        *error_sections(),
        python_section(),
    ]
    return "\n\n".join(parts) + "\n"


def method_page() -> str:
    """The whole of methods.md."""
    return "\n\n".join([GENERATED, *method_sections(), *combiner_sections()]) + "\n"


PAGES: Mapping[str, Callable[[], str]] = {"reference.md": reference_page, "methods.md": method_page}


def main() -> None:
    """Write the pages, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail unless the committed pages are what this writes")
    wanted = parser.parse_args()
    stale: list[str] = []
    for name, page in PAGES.items():
        text, path = page(), FOLDER / name
        if not wanted.check:
            path.write_text(text, encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
    if stale:
        sys.exit(f"docs: {' and '.join(stale)} differ from what the code says; run `make docs`")


if __name__ == "__main__":
    main()
