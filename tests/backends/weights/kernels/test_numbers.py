"""Kernels read and write the storage dtypes as torch does, bit for bit."""

import numpy as np
import pytest
import torch
from torch import Tensor

from evomerge.backends.weights.kernels.jit import compiled
from evomerge.backends.weights.kernels.numbers import Elements, bin_of, load, load_pair, store, store_pair
from evomerge.backends.weights.raw import Raw
from evomerge.strategies.merge.magnitudes import bins


@compiled
def read_all(source: Elements, out: Elements) -> None:
    for k in range(source.size):
        store(out, k, load(source, k))


@compiled
def read_pairs(source: Elements, out: Elements) -> None:
    for pair in range(source.size // 2):
        first, second = load_pair(source, pair)
        store_pair(out, pair, first, second)


@compiled
def bins_of(source: Elements, out: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> None:
    for k in range(source.size):
        out[k] = bin_of(load(source, k))


def converted(source: Tensor, dtype: torch.dtype) -> Tensor:
    out = torch.empty(source.shape, dtype=dtype)
    read_all(Raw.of(source).elements, Raw.of(out).elements)
    return out


def every(dtype: torch.dtype) -> Tensor:
    return torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16).view(dtype)


def floats() -> Tensor:
    """Numbers of all sizes, and those half-way between two that float16 or bfloat16 can hold."""
    generator = torch.Generator().manual_seed(3)
    random = torch.randint(-(1 << 31), 1 << 31, (200_000,), dtype=torch.int64, generator=generator)
    plain = random.to(torch.int32).view(torch.float32)
    bits = plain.view(torch.int32)
    halves = [((bits >> shift << shift) | (1 << (shift - 1))).view(torch.float32) for shift in (13, 16)]
    small = plain.sign() * 2.0 ** (torch.rand(50_000, generator=generator).repeat(4) * 50 - 40)
    edges = torch.tensor([0.0, -0.0, float("inf"), -float("inf"), 65504.0, 65519.99, 65520.0, 3.4e38, 2**-24, 2**-25])
    return torch.cat([plain, *halves, small, edges])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_number_of_a_dtype_is_read_as_torch_reads_it(dtype: torch.dtype) -> None:
    source = every(dtype)
    found, expected = converted(source, torch.float32), source.float()
    assert torch.equal(found.isnan(), expected.isnan())
    there = ~expected.isnan()
    assert torch.equal(found[there].view(torch.int32), expected[there].view(torch.int32))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_numbers_are_rounded_as_torch_rounds_them(dtype: torch.dtype) -> None:
    source = floats()
    found, expected = converted(source, dtype), source.to(dtype)
    assert torch.equal(found.isnan(), expected.isnan())
    there = ~expected.isnan()
    assert found[there].tolist() == expected[there].tolist()


def test_bins_are_those_of_the_methods() -> None:
    source = floats()
    source = source[source.isfinite()]
    found = np.empty(source.numel(), np.int64)
    bins_of(Raw.of(source).elements, found)
    assert found.tolist() == bins(source).tolist()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("begin", [0, 1])
def test_pairs_are_read_and_written_as_their_elements_are_wherever_they_begin(dtype: torch.dtype, begin: int) -> None:
    numbers = floats()
    source = numbers[~numbers.isnan()].to(dtype)
    for kind in (torch.float32, torch.bfloat16):
        found, expected = (torch.zeros(source.numel() + 1, dtype=kind)[begin : begin + 20_000] for _ in range(2))
        part = Raw.of(source[begin : begin + 20_000]).elements
        read_pairs(part, Raw.of(found).elements)
        read_all(part, Raw.of(expected).elements)
        assert expected.count_nonzero() > 0
        assert torch.equal(found, expected)
