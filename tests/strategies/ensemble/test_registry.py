"""The registry of combiners: ours, and those of other packages."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from evomerge.errors import ConfigError
from evomerge.strategies.ensemble import registry
from evomerge.strategies.ensemble.registry import combiner, combiners, get

PLUGIN = """\
from evomerge.strategies.ensemble.registry import combiner

@combiner("{name}", title="First", parameters=(), source="nobody")
def {name}(replies, params):
    return replies[0]
"""


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages, of which no trace is left afterwards."""
    before = dict(registry._declared)
    monkeypatch.syspath_prepend(tmp_path)
    registry._load.cache_clear()
    yield tmp_path
    registry._declared.clear()
    registry._declared.update(before)
    registry._load.cache_clear()


def install(folder: Path, module: str, source: str) -> None:
    (folder / f"{module}.py").write_text(source)
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[evomerge.combiners]\n{module} = {module}\n")


def test_every_combiner_says_what_it_does_and_where_it_comes_from() -> None:
    assert "vote" in combiners()
    assert all(known.title and known.source for known in combiners().values())


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="there is no combiner 'votes'; did you mean 'vote'"):
        get("votes")


def test_two_rules_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="the combiner 'vote' is declared twice"):
        combiner("vote", title="Other", parameters=(), source="nobody")(lambda replies, _: replies[0])


def test_a_combiner_of_another_package_is_found(plugins: Path) -> None:
    install(plugins, "elder", PLUGIN.format(name="elder"))
    assert get("elder").title == "First"
    assert "vote" in combiners()


def test_a_package_that_cannot_be_imported_harms_nobody_else(plugins: Path) -> None:
    install(plugins, "broken", PLUGIN.format(name="half") + "\nimport nothing_of_this_name\n")
    with pytest.warns(RuntimeWarning, match="the combiners of broken .* are left out: ModuleNotFoundError"):
        assert "half" not in combiners()
    assert "vote" in combiners()
