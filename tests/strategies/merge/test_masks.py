"""Random masks: whose they are decides everything, and nothing else does."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evomerge.strategies.merge import masks
from evomerge.strategies.merge.masks import drop_, expert_key
from tests.strategies.merge.reference import uniform
from tests.strategies.merge.support import apply

KEY = expert_key(7, "layers.0.weight", "expert")


def keep_mask(key: int, density: float, count: int, *, offset: int = 0) -> torch.Tensor:
    return drop_(torch.ones(count), key, density, offset=offset) == 1


def bits(mask: torch.Tensor) -> str:
    return np.packbits(mask.numpy()).tobytes().hex()


def test_numbers_are_the_same_for_ever() -> None:
    assert expert_key(7, "layers.0.weight", "expert") == 7896348447493413367
    found = [uniform(7, "layers.0.weight", "expert", index) for index in range(4)]
    assert found == [0.33362129982560873, 0.6432953544426709, 0.2145082384813577, 0.027990060159936547]
    assert bits(keep_mask(KEY, 0.5, 64)) == "b5ce4c401589f8e7"
    assert bits(keep_mask(KEY, 0.1, 64, offset=2**40 + 1)) == "0000002100880100"


def test_words_are_those_of_the_published_generator() -> None:
    ramp = torch.arange(1, 6).mul_(masks._signed(masks._GOLDEN))
    words, scratch = torch.empty_like(ramp), torch.empty_like(ramp)
    masks._fill(words, scratch, ramp, 1234567)
    assert [word % (1 << 64) for word in words.tolist()] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


@given(
    seed=st.integers(0, 2**63),
    name=st.text(max_size=8),
    offset=st.integers(0, 2**45),
    count=st.integers(0, 40),
    density=st.floats(2**-32, 1.0),
)
def test_mask_is_u_below_the_density(seed: int, name: str, offset: int, count: int, density: float) -> None:
    found = keep_mask(expert_key(seed, name, "f"), density, count, offset=offset)
    assert found.tolist() == [uniform(seed, name, "f", offset + index) < density for index in range(count)]


def test_u_equal_to_the_density_is_dropped() -> None:
    u = uniform(7, "layers.0.weight", "expert", 0)
    assert keep_mask(KEY, u, 1).tolist() == [False]
    assert keep_mask(KEY, u + 2**-32, 1).tolist() == [True]
    assert keep_mask(KEY, u + 2**-40, 1).tolist() == [True]  # a density finer than u's own steps


def test_slices_are_parts_of_the_whole_also_beyond_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = keep_mask(KEY, 0.3, 1001)
    monkeypatch.setattr(masks, "_CPU_PIECE", 16)
    assert keep_mask(KEY, 0.3, 1001).equal(whole)
    for start, end in [(0, 1), (1, 2), (3, 700), (31, 33), (500, 1001)]:
        assert keep_mask(KEY, 0.3, end - start, offset=start).equal(whole[start:end])


def test_masks_are_nested_in_density() -> None:
    grown = [keep_mask(KEY, density, 5000) for density in (0.001, 0.05, 0.3, 0.31, 0.9, 1.0)]
    for smaller, larger in pairwise(grown):
        assert bool((larger | ~smaller).all())
        assert int(larger.sum()) > int(smaller.sum())
    assert bool(grown[-1].all())


def test_share_kept_is_the_density() -> None:
    size = 400_000
    for density in (0.01, 0.3, 0.5, 0.93):
        share = float(keep_mask(KEY, density, size).double().mean())
        assert abs(share - density) < 5 * np.sqrt(density * (1 - density) / size)


def test_neighbours_experts_tensors_and_seeds_are_independent() -> None:
    size = 200_000
    one = keep_mask(KEY, 0.5, size).double() - 0.5
    others = {
        "the next element": keep_mask(KEY, 0.5, size, offset=1),
        "the word after": keep_mask(KEY, 0.5, size, offset=2),
        "another expert": keep_mask(expert_key(7, "layers.0.weight", "other"), 0.5, size),
        "another tensor": keep_mask(expert_key(7, "layers.1.weight", "expert"), 0.5, size),
        "another seed": keep_mask(expert_key(8, "layers.0.weight", "expert"), 0.5, size),
    }
    for what, other in others.items():
        correlation = float((one * (other.double() - 0.5)).mean()) * 4
        assert abs(correlation) < 5 / np.sqrt(size), what


@pytest.mark.parametrize("density", [0.0, -0.1, 1.5, float("nan")])
def test_density_outside_its_range_is_refused(density: float) -> None:
    with pytest.raises(ValueError, match="density must be above 0 and at most 1"):
        keep_mask(KEY, density, 4)


def test_expert_keeps_its_mask_wherever_it_stands_in_the_list() -> None:
    base = torch.zeros(500, dtype=torch.float64)
    experts = [
        torch.randn(500, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2, 3)
    ]
    names, densities = ("a", "b", "c"), (0.2, 0.5, 0.8)
    alone = [
        apply("dare_linear", base, [expert], seed=3, fingerprints=[name], density=(density,))
        for expert, name, density in zip(experts, names, densities, strict=True)
    ]
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        together = apply(
            "dare_linear",
            base,
            [experts[index] for index in order],
            seed=3,
            fingerprints=[names[index] for index in order],
            density=[densities[index] for index in order],
        )
        torch.testing.assert_close(together, alone[0] + alone[1] + alone[2])


def test_mean_over_seeds_is_the_task_vector_for_unbiased_and_not_for_l1() -> None:
    tau = torch.tensor([3.0, 0.1, -0.2, 1.0], dtype=torch.float64)
    base, seeds = torch.zeros_like(tau), 4_000
    means = {
        rescale: sum(
            (
                apply("dare_linear", base, [tau], {"rescale": rescale}, seed=seed, density=(0.5,))
                for seed in range(seeds)
            ),
            start=torch.zeros_like(tau),
        )
        / seeds
        for rescale in ("unbiased", "l1")
    }
    error = 5 * tau.abs() / np.sqrt(seeds)  # the standard deviation of a kept or dropped entry is its magnitude
    assert bool(((means["unbiased"] - tau).abs() < error).all())
    assert not bool(((means["l1"] - tau).abs() < error).all())
