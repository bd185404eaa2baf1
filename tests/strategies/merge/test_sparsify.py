"""Trimming keeps exactly as many entries as asked for, and always the same ones."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evomerge.strategies.merge.sparsify import kept_count, trim
from tests.strategies.merge import reference
from tests.strategies.merge.support import array


@pytest.mark.parametrize(
    ("size", "density", "count"),
    [(5, 0.4, 2), (10, 0.35, 3), (4, 0.2, 1), (1, 0.2, 1), (0, 0.5, 0), (7, 0.0, 0), (7, 1.0, 7), (3, 0.99, 2)],
)
def test_count_is_the_whole_part_and_at_least_one(size: int, density: float, count: int) -> None:
    assert kept_count(size, density) == count


def test_of_equal_entries_the_lowest_indices_are_kept() -> None:
    delta = torch.tensor([[1.0, -2.0, 2.0], [-2.0, 3.0, 2.0]])
    assert trim(delta, 0.5).tolist() == [[0.0, -2.0, 2.0], [0.0, 3.0, 0.0]]


def test_official_threshold_rule_would_keep_one_more() -> None:
    kept = trim(torch.arange(1.0, 101.0), 0.2)
    assert int(kept.count_nonzero()) == 20
    assert float(kept[kept > 0].min()) == 81.0


def test_density_zero_keeps_nothing() -> None:
    assert trim(torch.ones(5), 0.0).tolist() == [0.0] * 5


def test_zeros_stay_zeros_when_more_is_asked_for_than_there_is() -> None:
    assert trim(torch.tensor([0.0, 5.0, 0.0, 0.0]), 0.75).tolist() == [0.0, 5.0, 0.0, 0.0]


@given(values=st.lists(st.integers(-3, 3), max_size=30), density=st.floats(0, 1))
def test_trim_agrees_with_sorting(values: list[int], density: float) -> None:
    delta = torch.tensor(values, dtype=torch.float64)
    expected = reference.trim(array(delta), density)
    assert trim(delta, density).tolist() == expected.tolist()
