"""Counted values answer for order statistics: exact at the ends, within a 4096th between."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evomerge.strategies.merge.values import Values, keys

NUMBERS = st.lists(st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False), min_size=1, max_size=40)


@given(numbers=NUMBERS, cut=st.integers(0, 40))
def test_order_statistics_of_parts_added_up(numbers: list[float], cut: int) -> None:
    parts = torch.tensor(numbers[:cut]), torch.tensor(numbers[cut:])
    found = Values.of(parts[0]) + Values.of(parts[1])
    assert found.size == len(numbers)
    ordered = sorted(numbers)
    assert found.value_at(0) == ordered[0]
    assert found.value_at(len(numbers) - 1) == ordered[-1]
    for position, number in enumerate(ordered):
        assert found.value_at(position) == pytest.approx(number, rel=1 / 4096, abs=1e-37)
        assert found.key_at(position) == int(keys(torch.tensor([number])))


@given(numbers=NUMBERS)
def test_keys_are_in_the_order_of_the_numbers(numbers: list[float]) -> None:
    found = keys(torch.tensor(sorted(numbers)))
    assert bool((found.diff() >= 0).all())


def test_numbers_a_thousandth_apart_have_keys_of_their_own() -> None:
    numbers = torch.tensor([1.0, 1.001, 1.999, -1.0, -1.001, 0.0, 3e38])
    assert len(keys(numbers).unique()) == len(numbers)
    assert keys(torch.tensor([-0.0, 0.0])).tolist() == [0, 0]


def test_nothing_counted_adds_nothing() -> None:
    something = Values.of(torch.tensor([2.0, -1.0]))
    for found in (something + Values.of(torch.zeros(0)), Values.of(torch.zeros(0)) + something):
        assert (found.size, found.lowest, found.highest) == (2, -1.0, 2.0)


def test_large_tensors_are_counted_as_small_ones_are() -> None:
    large = torch.randn(1 << 20, generator=torch.Generator().manual_seed(1))
    whole, parts = Values.of(large), [Values.of(part) for part in large.chunk(4)]
    added = parts[0] + parts[1] + parts[2] + parts[3]
    assert np.array_equal(whole.keys, added.keys)
    assert np.array_equal(whole.counts, added.counts)
    assert (whole.lowest, whole.highest) == (added.lowest, added.highest)
