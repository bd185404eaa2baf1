"""Rank correlation agrees with an independent implementation, and says nothing where nothing can be said."""

import math
import random

import pytest
from scipy.stats import spearmanr

from evomerge.study.correlation import spearman


@pytest.mark.parametrize("levels", [3, 1000])
def test_it_is_spearmans_with_ties(levels: int) -> None:
    drawn = random.Random(levels)
    pairs = [(first := drawn.randrange(levels), first + drawn.randrange(levels)) for _ in range(30)]
    found = spearman([(float(one), float(two)) for one, two in pairs])
    assert found is not None
    expected = spearmanr([one for one, _ in pairs], [two for _, two in pairs]).statistic
    assert found.value == pytest.approx(expected, abs=1e-12)
    assert found.pairs == 30
    assert found.low is not None
    assert found.high is not None
    assert -1 < found.low < found.value < found.high < 1


def test_its_interval_covers_what_is_true_about_as_often_as_it_says() -> None:
    drawn, true, covered = random.Random(4), 0.7, 0
    pearson = 2 * math.sin(math.pi * true / 6)  # of normal variables whose rank correlation is `true`
    for _ in range(500):
        pairs = [(one := drawn.gauss(0, 1), pearson * one + math.sqrt(1 - pearson**2) * drawn.gauss(0, 1)) for _ in range(20)]
        found = spearman(pairs)
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= true <= found.high
    assert 0.92 < covered / 500 < 0.98


def test_few_or_equal_numbers_have_no_correlation_and_a_perfect_one_no_interval() -> None:
    assert spearman([(1, 2), (2, 3)]) is None
    assert spearman([(1, 2), (1, 3), (1, 4)]) is None
    four = spearman([(1, 2), (2, 1), (3, 4), (4, 3)])
    assert four is not None
    assert (four.value, four.low) == (pytest.approx(0.6), None)
    perfect = spearman([(number, number**3) for number in range(8)])
    assert perfect is not None
    assert (perfect.value, perfect.low, perfect.high) == (pytest.approx(1), None, None)
    assert str(perfect) == "1.00 (Spearman, 8 pairs)"
