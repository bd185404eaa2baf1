"""Names in recipes: folders, hub models, and sentences for what is neither."""

from pathlib import Path

import pytest

from evomerge.backends.weights.files import located, opened
from evomerge.errors import SourceError
from evomerge.recipe.tree import Source
from tests.backends.weights.family import Zoo


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A local hub cache that holds nothing, and no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_a_folder_wins_over_the_hub(tmp_path: Path, hub: Path):
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert located(Source("org/name"), tmp_path) == (Source(str(tmp_path / "org" / "name")), tmp_path / "org" / "name")


def test_a_hub_model_comes_from_the_cache(tmp_path: Path, hub: Path, zoo: Zoo):
    snapshot = hub / "models--org--name" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (hub / "models--org--name" / "refs").mkdir()
    (hub / "models--org--name" / "refs" / "main").write_text("a" * 40)
    for file in zoo.base.iterdir():
        (snapshot / file.name).symlink_to(file)
    source, folder = located(Source("org/name"), tmp_path)
    assert source == Source("org/name")
    assert folder == snapshot
    assert opened(folder).stored
    assert located(Source("org/name", "a" * 40), tmp_path)[1] == snapshot


def test_a_hub_model_that_cannot_be_had_is_refused(tmp_path: Path, hub: Path):
    with pytest.raises(
        SourceError, match=r"org/name is no folder .* revision v1 is neither in the local cache nor reachable"
    ):
        located(Source("org/name", "v1"), tmp_path)


@pytest.mark.parametrize("name", ["./org/name", "/org/name", "../name", "name", "a/b/c", "~/nowhere/at/all"])
def test_a_path_that_does_not_exist_is_not_asked_of_the_hub(tmp_path: Path, name: str):
    with pytest.raises(SourceError, match="does not exist; correct the path"):
        located(Source(name), tmp_path)


@pytest.mark.parametrize("name", ["org/na--me", "org/name.git"])
def test_a_name_that_no_hub_model_can_have_is_refused(tmp_path: Path, hub: Path, name: str):
    with pytest.raises(SourceError, match=f"{name} is neither a folder"):
        located(Source(name), tmp_path)


def test_a_revision_of_a_folder_is_refused(tmp_path: Path):
    with pytest.raises(SourceError, match="remove the revision"):
        located(Source(str(tmp_path), "main"), tmp_path)


def test_a_file_is_no_model(tmp_path: Path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(SourceError, match="is a file; give the folder"):
        located(Source("model.safetensors"), tmp_path)


def test_a_folder_that_holds_no_model_is_refused(tmp_path: Path):
    with pytest.raises(SourceError, match=r"neither config\.json nor adapter_config\.json"):
        opened(tmp_path)
