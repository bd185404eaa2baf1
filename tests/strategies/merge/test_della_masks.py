"""Whom DELLA drops: as often as it says, by rank within the row, and independently of everything else."""

from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from evomerge.strategies.merge.masks import drop_, drop_each_, expert_key
from tests.strategies.merge import reference_sparse
from tests.strategies.merge.support import apply, array, tensor

TAU = tensor([[0.1, -0.5, 0.3, 0.05], [-8.0, 2.0, 4.0, 1.0]])
SEEDS = 4_000


@cache
def merged(rescale: str) -> Tensor:
    """Return the task vector after dropping, for many seeds: of shape (seeds, 2, 4)."""
    base = torch.zeros_like(TAU)
    return torch.stack(
        [
            apply("della_linear", base, [TAU], {"rescale": rescale}, seed=seed, density=(0.6,), epsilon=(0.15,))
            for seed in range(SEEDS)
        ]
    )


def test_chances_of_the_worked_example() -> None:
    assert reference_sparse.della_chances([0.1, -0.5, 0.3, 0.05], 0.6, 0.15) == pytest.approx([0.55, 0.75, 0.65, 0.45])


def test_entries_are_kept_as_often_as_their_rank_in_their_row_says() -> None:
    wanted = tensor([reference_sparse.della_chances(list(row), 0.6, 0.15) for row in array(TAU)])
    share = (merged("unbiased") != 0).double().mean(0)
    assert bool(((share - wanted).abs() < 5 * (wanted * (1 - wanted) / SEEDS).sqrt()).all())


def test_mean_over_seeds_is_the_task_vector_for_unbiased_and_not_for_l1() -> None:
    error = 5 * TAU.abs() * np.sqrt((1 / 0.45 - 1) / SEEDS)
    assert bool(((merged("unbiased").mean(0) - TAU).abs() < error).all())
    assert not bool(((merged("l1").mean(0) - TAU).abs() < error).all())


def test_l1_keeps_the_sum_of_magnitudes() -> None:
    masses = merged("l1").abs().sum((1, 2))
    something = masses > 0
    assert int(something.sum()) > 0.9 * SEEDS
    torch.testing.assert_close(masses[something], TAU.abs().sum().expand(int(something.sum())))


def test_entries_are_dropped_independently_of_each_other() -> None:
    kept = (merged("unbiased") != 0).double().reshape(SEEDS, -1)
    correlations = torch.corrcoef(kept.T) - torch.eye(kept.shape[1], dtype=torch.float64)
    assert float(correlations.abs().max()) < 5 / np.sqrt(SEEDS)


def test_one_density_for_each_is_the_mask_of_that_density() -> None:
    key = expert_key(3, "layers.0.weight", "expert")
    densities = torch.rand(1001, generator=torch.Generator().manual_seed(1)).clamp_(min=2**-32)
    densities[17] = 1.0
    found = drop_each_(torch.ones(1001), key, densities, offset=5)
    single = [drop_(torch.ones(1), key, float(density), offset=5 + at) for at, density in enumerate(densities)]
    assert found.equal(torch.cat(single))


def test_a_density_of_one_keeps_every_element() -> None:
    assert bool(drop_each_(torch.ones(1 << 20), 7, torch.ones(1 << 20)).all())


def test_no_spread_is_dare() -> None:
    base = torch.zeros(500, dtype=torch.float64)
    expert = torch.randn(500, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = apply("della_linear", base, [expert], density=(0.5,), epsilon=(0.0,))
    assert found.equal(apply("dare_linear", base, [expert], density=(0.5,)))


def test_transposed_tensors_merge_as_their_copies_do() -> None:
    base, expert = (torch.randn(6, 9, generator=torch.Generator().manual_seed(seed)).t() for seed in (1, 2))
    copied = apply("della_linear", base.contiguous(), [expert.contiguous()])
    assert apply("della_linear", base, [expert]).equal(copied)
    assert not copied.equal(expert)


def test_blocks_of_rows_are_parts_of_the_whole() -> None:
    rows = torch.randn(300, 1001, generator=torch.Generator().manual_seed(2))
    whole = apply("della_linear", torch.zeros_like(rows), [rows])
    head = apply("della_linear", torch.zeros_like(rows[:200]), [rows[:200]])
    assert whole[:200].equal(head)
    share = float((whole != 0).double().mean())
    assert abs(share - 0.7) < 5 * np.sqrt(0.21 / rows.numel())
