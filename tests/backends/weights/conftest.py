"""Models and adapters for the tests of this folder, made once."""

from pathlib import Path

import pytest
import torch

from evomerge.backends.weights.store import WeightStore
from tests.backends.weights.family import ATTENTION, MLP, Copy, Zoo


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    torch.set_num_threads(1)
    return Zoo(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="session")
def experts(zoo: Zoo) -> list[Path]:
    return [zoo.model("math", seed=1), zoo.model("code", seed=2, dtype=torch.bfloat16), zoo.model("chat", seed=3)]


@pytest.fixture(scope="session")
def adapters(zoo: Zoo) -> list[Path]:
    """Different ranks, scales, dtypes and targets: attention, all layers with rsLoRA, one projection."""
    return [
        zoo.adapter("short", seed=4, r=2, lora_alpha=8),
        zoo.adapter(
            "wide", seed=5, r=5, lora_alpha=5, use_rslora=True, targets=(*ATTENTION, *MLP), dtype=torch.bfloat16
        ),
        zoo.adapter(
            "down",
            seed=6,
            r=3,
            lora_alpha=2,
            targets=("down_proj", "q_proj"),
            rank_pattern={"q_proj": 4},
            alpha_pattern={"layers.1.self_attn.q_proj": 16},
        ),
    ]


@pytest.fixture(scope="session")
def sharded(zoo: Zoo) -> Path:
    """A float16 model in three files or more."""
    folder = zoo.model("sharded", seed=9, dtype=torch.float16, shard="4KB")
    assert len(list(folder.glob("*.safetensors"))) >= 3
    return folder


@pytest.fixture(scope="session")
def tied(zoo: Zoo) -> list[Path]:
    """Two models whose output head is their embedding."""
    return [zoo.model(f"tied{seed}", seed=seed, tie_word_embeddings=True) for seed in (1, 2)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "evomerge"


@pytest.fixture
def store() -> WeightStore:
    return WeightStore()


@pytest.fixture
def copied(tmp_path: Path) -> Copy:
    """Copy a model folder to where it may be broken."""

    def copy(folder: Path) -> Path:
        target = tmp_path / folder.name
        target.mkdir()
        for file in folder.iterdir():
            (target / file.name).write_bytes(file.read_bytes())
        return target

    return copy
