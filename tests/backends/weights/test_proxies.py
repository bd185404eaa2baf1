"""Models as adapters for a cheap search: nearly the best of their rank, kept in a folder, honest about what they lack."""

import json
import math
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

from evomerge.backends.weights.adapter import Adapter
from evomerge.backends.weights.extraction import leading
from evomerge.backends.weights.proxies import ABOUT, Proxies
from evomerge.backends.weights.store import WeightStore
from evomerge.recipe.tree import Input, Merge, Source
from tests.backends.weights.family import Zoo

RANK = 3


@pytest.fixture
def base(store: WeightStore, zoo: Zoo) -> Source:
    return resolved(store, zoo, "base")


def resolved(store: WeightStore, zoo: Zoo, name: str) -> Source:
    found = store.resolve(Source(name), zoo.root)
    assert isinstance(found, Source)
    return found


@pytest.mark.parametrize("decay", [0.0, 0.5, 2.0])
def test_a_large_matrix_is_approximated_nearly_as_well_as_can_be(decay: float) -> None:
    drawn = torch.Generator().manual_seed(1)
    left, right = (torch.linalg.qr(torch.randn(size, 200, generator=drawn))[0] for size in (300, 200))
    values = torch.arange(1, 201).float() ** -decay
    matrix = left * values @ right.T
    low = leading(matrix, 16)
    assert (low.a.shape, low.b.shape) == ((16, 200), (300, 16))
    error, least = float((matrix - low.b @ low.a).norm()), float(values[16:].norm())
    assert least <= error * (1 + 1e-5)
    assert error <= 1.01 * least
    assert torch.equal(leading(matrix, 16).b, low.b)


def test_the_linear_layers_change_is_an_adapter_that_others_read(
    store: WeightStore, zoo: Zoo, experts: list[Path], base: Source, tmp_path: Path
) -> None:
    found = Proxies(store, base, RANK, tmp_path).extract(resolved(store, zoo, "math"))
    adapter = Adapter(Path(found.adapter.model))
    weights = {f"{module}.weight" for module in adapter.modules}
    assert weights == {name for name in store.outline(base) if name.endswith("_proj.weight")}
    tuned, own = (load_file(zoo.root / name / "model.safetensors") for name in ("math", "base"))
    merged = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(zoo.base), adapter.folder).merge_and_unload()
    got = merged.state_dict()
    squares, missing, outside = 0.0, 0.0, 0.0
    for name, tensor in own.items():
        change, left = tuned[name] - tensor, float((tuned[name] - got[name]).norm()) ** 2
        squares, missing = squares + float(change.norm()) ** 2, missing + left
        outside += 0.0 if name in weights else left
        if name in weights:
            least = torch.linalg.svdvals(change)[RANK:].norm()
            assert math.sqrt(left) == pytest.approx(float(least), rel=1e-4)
    assert found.loss.total == pytest.approx(math.sqrt(missing / squares), rel=1e-4)
    assert found.loss.outside == pytest.approx(math.sqrt(outside / squares), rel=1e-4)
    assert "lm_head.weight" in found.loss.left_out


def test_what_is_there_is_used_again_and_what_was_changed_is_not(
    store: WeightStore, zoo: Zoo, experts: list[Path], base: Source, tmp_path: Path
) -> None:
    math_, code = resolved(store, zoo, "math"), resolved(store, zoo, "code")
    adapters = Proxies(store, base, RANK, tmp_path)
    assert adapters.known(math_) is None
    first = adapters.extract(math_)
    left = tmp_path / f".{Path(first.adapter.model).name}.0a.partial"
    left.mkdir()
    again = Proxies(WeightStore(), base, RANK, tmp_path)
    assert again.known(math_) == first
    assert again.extract(math_, _never) == first
    assert again.known(code) is None
    assert Proxies(store, base, RANK + 1, tmp_path).known(math_) is None
    weights = Path(first.adapter.model) / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\x00\x00\x80\x3f")
    assert again.known(math_) is None
    assert again.extract(math_) == first
    assert not left.exists()


def test_an_extraction_that_is_stopped_leaves_nothing(
    store: WeightStore, zoo: Zoo, experts: list[Path], base: Source, tmp_path: Path
) -> None:
    count = iter(range(3))
    with pytest.raises(StopIteration):
        Proxies(store, base, RANK, tmp_path / "proxy").extract(resolved(store, zoo, "math"), lambda: _count(count))
    assert not (tmp_path / "proxy").exists()


def test_a_merge_without_holes_is_one_model(
    store: WeightStore, zoo: Zoo, experts: list[Path], base: Source, tmp_path: Path
) -> None:
    ties = store.resolve(Merge("ties", (Input(Source("math")), Input(Source("code"))), Source("base")), zoo.root)
    found = Proxies(store, base, 16, tmp_path).extract(ties)
    whole = Merge("task_arithmetic", (Input(found.adapter),), base)
    expected = dict(store.tensors(ties))
    for name, tensor in store.tensors(whole):
        if name.endswith("_proj.weight"):
            torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-5)
    assert json.loads((Path(found.adapter.model) / ABOUT).read_text())["loss"]["carried"] < 1e-4


def _never() -> None:
    raise AssertionError("this is known already")


def _count(numbers: "object") -> None:
    next(numbers)  # pyright: ignore[reportArgumentType]  # an iterator
