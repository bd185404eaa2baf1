"""Large tensors are worked on in pieces, each element once, and summed without losing the small ones."""

import pytest
import torch

from evomerge.strategies.merge import vectors
from evomerge.strategies.merge.vectors import pieces, total
from tests.strategies.merge.support import apply


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 25])
def test_pieces_cover_every_element_once(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "_PIECE", 8)
    flat = torch.arange(size)
    assert [index for span in pieces(flat) for index in flat[span].tolist()] == list(range(size))
    assert all(flat[span].numel() <= 8 for span in pieces(flat))


@pytest.mark.parametrize("name", ["slerp", "ties", "dare_linear", "dare_ties"])
def test_pieces_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(4)
    base, *experts = (torch.randn(9, 11, dtype=torch.float64, generator=generator) for _ in range(4))
    experts = experts[:1] if name == "slerp" else experts
    whole = apply(name, base, experts)
    monkeypatch.setattr(vectors, "_PIECE", 8)
    torch.testing.assert_close(apply(name, base, experts), whole, rtol=1e-12, atol=1e-12)


def test_total_of_float32_is_summed_in_float64() -> None:
    tensor = torch.tensor([2.0**30, 1.0, -(2.0**30)])
    assert total(lambda values: values * 1, tensor) == 1.0


def test_total_of_nothing_is_zero() -> None:
    assert total(torch.abs, torch.empty(0)) == 0.0
