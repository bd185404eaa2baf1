"""Bands of entries in the order of their magnitudes: exact in number, whatever is equal, over one tensor or several."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from evomerge.strategies.merge.magnitudes import Magnitudes, bins, select_
from tests.strategies.merge import reference


def ranked(values: list[float]) -> list[int]:
    return sorted(range(len(values)), key=lambda index: (-reference.coarse(values[index]), index))


VALUES = st.lists(st.sampled_from([0.0, 1.0, -1.0, 1.001, -1.003, 2.0, 0.5, 1e-3, -3.75]), max_size=24)


@given(values=VALUES, ends=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_a_band_holds_exactly_the_entries_of_those_ranks(values: list[float], ends: tuple[float, float]) -> None:
    first, last = sorted(int(end * len(values)) for end in ends)
    delta = torch.tensor([value or 9e-9 for value in values])
    kept = select_(delta.clone(), Magnitudes.of(delta).band(first, last)).nonzero().flatten().tolist()
    assert kept == sorted(ranked(delta.tolist())[first:last])


@given(parts=st.lists(VALUES, min_size=1, max_size=3), ends=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_a_band_over_several_tensors_is_that_of_them_joined(
    parts: list[list[float]], ends: tuple[float, float]
) -> None:
    tensors = [torch.tensor([value or 9e-9 for value in part]) for part in parts]
    joined = torch.cat(tensors)
    first, last = sorted(int(end * len(joined)) for end in ends)
    band = Magnitudes.of(*tensors).band(first, last)
    found: list[torch.Tensor] = []
    before = Magnitudes.of(joined[:0])
    for tensor in tensors:
        found.append(select_(tensor.clone(), band, before))
        before = before + Magnitudes.of(tensor)
    expected = select_(joined.clone(), Magnitudes.of(joined).band(first, last))
    assert torch.equal(torch.cat(found), expected)


def test_bins_are_the_bits_of_the_magnitude_as_bfloat16() -> None:
    values = torch.tensor([0.0, -0.0, 1.0, -1.00390625, 1.01171875, float("inf")])  # two are half-way: to even
    assert bins(values).tolist() == [0, 0, 0x3F80, 0x3F80, 0x3F82, 0x7F80]


def test_a_nan_of_either_sign_counts_as_larger_than_infinity() -> None:
    nan = torch.tensor([0x7FC00000, -0x00400000], dtype=torch.int32).view(torch.float32)  # both signs
    assert nan.isnan().all()
    assert (bins(nan) > 0x7F80).all()
    assert Magnitudes.of(nan).size == 2
