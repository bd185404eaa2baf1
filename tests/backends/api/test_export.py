"""The folder of an exported ensemble: a recipe that reads back, a card, and no keys."""

from pathlib import Path

import pytest

from evomerge.backends.api.export import export_ensemble
from evomerge.backends.api.settings import EndpointSettings
from evomerge.errors import ConfigError
from evomerge.recipe.endpoints import with_endpoints
from evomerge.recipe.tree import Endpoint, Ensemble, Member
from evomerge.study.job import load_recipe_file

ENDPOINTS = {
    "fast": EndpointSettings(url="https://host/v1", model="small", api_key_env="FAST_KEY", usd_per_mtok=(0.1, 0.4)),
    "smart": EndpointSettings(url="https://host/v1", model="large", timeout=5),
    "unused": EndpointSettings(url="https://host/v1", model="other"),
}
RECIPE = Ensemble("vote", (Member(Endpoint("fast"), {"weight": -0.5}), Member(Endpoint("smart"))))


def test_what_is_exported_reads_back_with_the_endpoints_it_asks(tmp_path: Path) -> None:
    export_ensemble(RECIPE, ENDPOINTS, tmp_path / "out", card="It won.")
    recipe, endpoints = load_recipe_file(tmp_path / "out" / "recipe.yaml")
    asked = {name: ENDPOINTS[name] for name in ("fast", "smart")}
    assert endpoints == asked
    assert recipe == with_endpoints(RECIPE, {name: one.fingerprint for name, one in asked.items()})
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["README.md", "recipe.yaml"]


def test_the_card_says_who_is_asked_and_where_keys_come_from(tmp_path: Path) -> None:
    export_ensemble(RECIPE, ENDPOINTS, tmp_path / "out", card="It won.")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "- `fast`: `small` at `https://host/v1`" in card
    assert "The keys come from `FAST_KEY` in the environment." in card
    assert card.endswith("It won.\n")


def test_a_folder_that_is_taken_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "note").write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        export_ensemble(RECIPE, ENDPOINTS, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["note"]


def test_a_place_that_cannot_be_written_is_said_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        export_ensemble(RECIPE, ENDPOINTS, tmp_path / "file" / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
