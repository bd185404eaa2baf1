"""The picture of a trade-off: what every recipe scored on the select split, against what else was wanted of it."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from evomerge.report.convergence import BLUE, GREY, ORANGE
from evomerge.study.choose import SINGLES
from evomerge.study.objectives import MEAN, Objective
from evomerge.study.tradeoff import Tradeoff


def draw(study: str, found: Tradeoff, path: Path) -> None:
    """Draw the front as an SVG file, with one panel for each objective beside the score."""
    further = [objective for objective in found.objectives if objective is not MEAN]
    figure = Figure(figsize=(6.2 * len(further), 3.8), layout="constrained")
    FigureCanvasSVG(figure)
    panels = figure.subplots(1, len(further), squeeze=False)[0]
    for panel, objective in zip(panels, further, strict=True):
        _draw(panel, found, objective)
    panels[0].set_title(f"{study}: front on the select split", loc="left", fontsize=11)
    panels[0].legend(frameon=False, fontsize=8, loc="lower right")
    figure.savefig(path, metadata={"Date": None})


def _draw(axes: Axes, found: Tradeoff, objective: Objective) -> None:
    searched = [values for values in found.searched if values is not None]
    _dots(axes, [(one[objective.name], one[MEAN.name]) for one in searched], GREY, 10, "trials, on the search split")
    singles = [one for one in found.others if one.contender.kind in SINGLES]
    points = [(one.values[objective.name], one.values[MEAN.name]) for one in singles]
    _dots(axes, points, ORANGE, 36, "single models")
    for point, one in zip(points, singles, strict=True):
        axes.annotate(one.contender.name, point, xytext=(5, 4), textcoords="offset points", fontsize=8, color=ORANGE)
    front = sorted((one.values[objective.name], one.values[MEAN.name]) for one in found.front)
    _dots(axes, front, BLUE, 30, "front")
    if len(found.objectives) == len((MEAN, objective)):
        axes.plot(*zip(*front, strict=True), color=BLUE, linewidth=1.2, zorder=2)
    knee = (found.knee.values[objective.name], found.knee.values[MEAN.name])
    axes.scatter(*knee, s=110, facecolors="none", edgecolors=BLUE, linewidths=1.6, label="knee (winner)", zorder=4)
    axes.set_xlabel(objective.heading)
    axes.set_ylabel("score")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def _dots(axes: Axes, points: list[tuple[float, float]], colour: str, size: int, label: str) -> None:
    if points:
        axes.scatter(*zip(*points, strict=True), s=size, color=colour, label=label, zorder=3)
