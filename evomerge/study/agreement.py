"""How well a search by proxy agreed with what it stood for: scores of both for some trials, on the same items."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from evomerge.study.correlation import Correlation, spearman


@dataclass(frozen=True, slots=True)
class Pair:
    """The fitness of a trial's proxy and of its exact recipe on the search split."""

    trial: int
    proxy: float
    exact: float
    finalist: bool


@dataclass(frozen=True, slots=True)
class Agreement:
    """Trials that were scored in both ways: the finalists, and some spread evenly over the ranks of all others.

    `lacks` has, of each model, the share of its change to the base that its adapter of `rank` lacks.
    """

    rank: int
    lacks: Mapping[str, float]
    pairs: tuple[Pair, ...]

    @property
    def overall(self) -> Correlation | None:
        """The rank correlation over all pairs."""
        return _correlation(self.pairs)

    @property
    def of_finalists(self) -> Correlation | None:
        """The rank correlation over finalists alone, which is lower where they are nearly as good as each other."""
        return _correlation([pair for pair in self.pairs if pair.finalist])

    @property
    def sentence(self) -> str:
        """What is to be thought of the search, in words."""
        lacks = ", ".join(f"{name} {share:.1%}" for name, share in self.lacks.items())
        proxies = f"The search scored adapters of rank {self.rank} in place of whole models"
        proxies += f" (they lack, of each model's change: {lacks})." if lacks else "."
        if not self.pairs:
            return f"{proxies} None of its trials was scored exactly."
        apart = sum(pair.exact - pair.proxy for pair in self.pairs) / len(self.pairs)
        return (
            f"{proxies} Rank correlation of proxy and exact scores: {_said(self.overall)}; over the finalists alone: "
            f"{_said(self.of_finalists)}. Exact scores differ by {apart:+.3f} on average."
        )

    def to_plain(self) -> dict[str, Any]:
        """Return all of it as JSON-ready data."""
        overall, of_finalists = self.overall, self.of_finalists
        return {
            "rank": self.rank,
            "lacks": dict(self.lacks),
            "pairs": [asdict(pair) for pair in self.pairs],
            "spearman": None if overall is None else asdict(overall),
            "spearman_of_finalists": None if of_finalists is None else asdict(of_finalists),
        }


def _correlation(pairs: Sequence[Pair]) -> Correlation | None:
    return spearman([(pair.proxy, pair.exact) for pair in pairs])


def _said(found: Correlation | None) -> str:
    return "none (too few trials, or all alike)" if found is None else str(found)


def agreement_of(plain: Mapping[str, Any]) -> Agreement:
    """Return what `to_plain` wrote."""
    return Agreement(plain["rank"], plain["lacks"], tuple(Pair(**pair) for pair in plain["pairs"]))
