import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.search.quiz import unit_genes
from evomerge.errors import ConfigError
from evomerge.strategies.search import SearchSettings, make_strategy, strategy, strategy_names
from evomerge.strategies.search.random import make_random
from tests.strategies.search.support import made, run, sphere

REPOSITORY = Path(__file__).resolve().parents[3]


def python(code: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter that finds the repository and the packages in `path`."""
    environment = {"PYTHONPATH": f"{REPOSITORY}:{path}", "PATH": "", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)


def plugin(folder: Path, name: str, code: str) -> None:
    """Install a package with one entry point into `folder`, as pip would leave it."""
    (folder / f"{name}.py").write_text(code)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[evomerge.strategies]\n{name} = {name}\n")


def test_ours_are_there() -> None:
    assert set(strategy_names()) >= {"cma", "de", "grid", "pso", "random", "tbpsa"}


def test_listing_and_choosing_load_no_optimizer(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from evomerge.strategies.search import SearchSettings, strategy_names\n"
        "strategy_names(); SearchSettings(strategy='cma')\n"
        "print(sorted({'nevergrad', 'cma', 'numpy', 'scipy'} & set(sys.modules)))"
    )
    assert python(code, tmp_path).stdout == "[]\n"


def test_a_plugin_is_found_and_a_broken_one_warns_and_is_skipped(tmp_path: Path) -> None:
    plugin(
        tmp_path,
        "spiral",
        "from evomerge.strategies.search import strategy\n"
        "from evomerge.strategies.search.random import make_random\n"
        "strategy('spiral', settings=('population',))(make_random)\n",
    )
    plugin(tmp_path, "broken", "import no_such_package_anywhere\n")
    plugin(tmp_path, "thief", "from evomerge.strategies.search import strategy\nstrategy('cma')(print)\n")
    code = (
        "from evomerge.strategies.search import SearchSettings, strategy_names\n"
        "print(*strategy_names(), SearchSettings(strategy='spiral', population=9).population)"
    )
    done = python(code, tmp_path)
    assert done.stdout == "cma de grid pso random spiral tbpsa 9\n"
    assert "plugin 'broken' (broken) does not load and is skipped: No module named" in done.stderr
    assert "plugin 'thief' (thief) does not load and is skipped: there is already a search strategy" in done.stderr


def test_a_name_is_given_once() -> None:
    strategy_names()
    with pytest.raises(ValueError, match="already a search strategy named 'random'"):
        strategy("random")(make_random)


@pytest.mark.parametrize("name", strategy_names())
def test_no_holes_are_nothing_to_search(name: str) -> None:
    with pytest.raises(ConfigError, match="the recipe has no holes, so there is nothing to search"):
        make_strategy(SearchSettings(strategy=name), (), ())


@pytest.mark.parametrize("point", [(0.5,), (0.5, 0.5, 0.5), (0.5, 1.1), (0.5, float("nan"))])
def test_a_point_outside_the_space_is_refused_as_start_and_as_suggestion(point: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="starting point"):
        make_strategy(SearchSettings(), unit_genes(2), point)
    with pytest.raises(ValueError, match="starting point"):
        make_strategy(SearchSettings(), unit_genes(2), (0.5, 0.5), [point])


@pytest.mark.parametrize("name", [name for name in strategy_names() if name != "grid"])
def test_suggestions_are_the_first_proposals_then_the_start(name: str) -> None:
    suggestions = [(0.1, 0.2, 0.3), (1.0, 0.0, 0.5), (0.1, 0.2, 0.3)]
    search = make_strategy(SearchSettings(strategy=name), unit_genes(3), (0.4, 0.5, 0.6), suggestions)
    first = [vector for _, vector in run(search, sphere([0.1, 0.2, 0.3]), 60)][:3]
    assert first == [(0.1, 0.2, 0.3), (1.0, 0.0, 0.5), (0.4, 0.5, 0.6)]


@pytest.mark.parametrize("name", strategy_names())
def test_the_number_of_trials_changes_nothing_that_is_proposed(name: str) -> None:
    fitness = sphere([0.3, 0.3])
    short, long = (run(made(name, 2, trials=trials, seed=3), fitness, 25) for trials in (10, 10_000))
    assert short == long
