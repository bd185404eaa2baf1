"""Counts on the device are those of the formula."""

import pytest
import torch

from evomerge.backends.weights.gpu.histograms import CHUNK, DeviceHistogram
from evomerge.strategies.merge.magnitudes import Magnitudes


@pytest.mark.parametrize("size", [1, 1000, 2 * CHUNK, 2 * CHUNK + 3])
def test_counts_are_those_of_the_formula(size: int, device: torch.device) -> None:
    generator = torch.Generator().manual_seed(size)
    base = torch.randn(size, generator=generator).to(device).bfloat16()
    model = (base.float() * torch.randint(0, 3, (size,), generator=generator).to(device)).bfloat16()
    found = DeviceHistogram.of(base, model)
    assert (found.magnitudes.counts == Magnitudes.of(model.float() - base.float()).counts).all()
    assert found.bytes > 0


def test_equal_tensors_have_zeros_alone(device: torch.device) -> None:
    model = torch.ones(10, device=device)
    found = DeviceHistogram.of(model, model)
    assert found.magnitudes.counts[0] == found.magnitudes.size == 10
