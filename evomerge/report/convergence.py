"""The picture of a search: every trial's fitness, the best so far, and what it had to beat."""

from itertools import accumulate
from pathlib import Path

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from evomerge.study.result import Outcome

BLUE, GREY, ORANGE = "#2458a6", "#8a8f98", "#c8701f"
SHOWN_REFERENCES = ("uniform average", "ties (published defaults)", "uniform vote")


def draw(outcome: Outcome, path: Path) -> None:
    """Draw the convergence of a study on its search split as an SVG file."""
    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    scored = [(number, value) for number, value in enumerate(outcome.searched) if value is not None]
    numbers, values = [number for number, _ in scored], [value for _, value in scored]
    trials = "trials" if outcome.agreement is None else f"trials, by proxy of rank {outcome.agreement.rank}"
    axes.scatter(numbers, values, s=12, color=GREY, label=trials, zorder=2)
    axes.step(
        numbers, list(accumulate(values, max)), where="post", color=BLUE, linewidth=2, label="best so far", zorder=3
    )
    if outcome.agreement is not None:
        pairs = outcome.agreement.pairs
        places, exact = [pair.trial for pair in pairs], [pair.exact for pair in pairs]
        axes.scatter(places, exact, s=28, color=BLUE, marker="x", label="the same, exactly", zorder=4)
    wanted = (outcome.best_single, *SHOWN_REFERENCES)
    shown = [name for name in wanted if name is not None and name in outcome.references]
    for name, style in zip(shown, ("--", ":", "-."), strict=False):
        label = f"{name} (best single model)" if name == outcome.best_single else name
        axes.axhline(outcome.references[name], color=ORANGE, linewidth=1.2, linestyle=style, label=label, zorder=1)
    axes.set_xlabel("trial")
    axes.set_ylabel("fitness on the search split")
    axes.set_title(f"{outcome.study}: {len(outcome.searched)} trials", loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    figure.savefig(path, metadata={"Date": None})
