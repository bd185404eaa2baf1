"""What a study spends on endpoints, phase by phase: what is kept back for later, and when a search can pay no more.

When a search ends is decided by the answers in the journal alone, each at its price, whether it was paid now, at an
earlier start or by another study: so an interrupted study ends its search where an undisturbed one does. The ledger
holds the budget itself; what requests that were lost have cost stands only there.
"""

from collections.abc import Callable
from dataclasses import dataclass

from evomerge.backends.api.backend import ApiBackend
from evomerge.backends.api.ledger import Ledger
from evomerge.backends.api.money import Amount, Part, amount
from evomerge.backends.api.prices import usd_of
from evomerge.backends.api.spent import Spent, read_ledger
from evomerge.backends.protocol import Backend
from evomerge.exchange import Request
from evomerge.study.costs import budget_of, check_budget, costs
from evomerge.study.journal import Journal
from evomerge.study.prepare import Prepared

MARGIN = 1.25
"""What is kept back for later, in multiples of what answers have cost so far."""


@dataclass
class Spending:
    """The money of one start of a study.

    `ledger` is None where nothing is paid for. `later` counts the requests that selection and test will take, `further`
    those of another trial.
    """

    prepared: Prepared
    ledger: Ledger | None
    journal: Journal
    later: Callable[[], int]
    further: Callable[[], int]

    def check(self, known: Callable[[str, Request], bool]) -> str | None:
        """Return a sentence where the budget may not cover what is still to be asked.

        Raises ConfigError where it surely does not. `known` says whether an answer is there already.
        """
        if self.ledger is None or not self._limited:
            return None
        if self.journal.begun:
            return None  # who goes on with a study knows what it costs, and the ledger holds
        return check_budget(self.prepared, costs(self.prepared, known), self.ledger.spent)

    def keep_for_later(self) -> None:
        """Keep back from the search what selection and test will take."""
        self._keep(self.later())

    def keep_nothing(self) -> None:
        """Let all be spent."""
        self._keep(0)

    def end_of_search(self) -> Part | None:
        """Return which part of the budget pays no further trial, with selection and test still to come."""
        if self.ledger is None or not self._limited or not self.further():
            return None
        asked, spent = self._answered()
        needed = self.further() + self.later()
        return budget_of(self.prepared).lacks(spent + self._share(needed, asked, spent))

    def told(self) -> Spent | None:
        """Return what the ledger tells, when nothing is asked any more; None where nothing was ever paid for."""
        if self.ledger is None:
            return None
        self.ledger.close()
        return read_ledger(self.ledger.path)

    @property
    def _limited(self) -> bool:
        budget = self.prepared.job.settings.budget
        return budget.usd is not None or budget.tokens is not None

    def _keep(self, requests: int) -> None:
        if self.ledger is not None and self._limited:
            asked, spent = self._answered()
            self.ledger.keep(self._share(requests, asked, spent))

    @staticmethod
    def _share(requests: int, asked: int, spent: Amount) -> Amount:
        """Return what so many requests will take, from what `asked` of them have."""
        return spent * (MARGIN * requests / asked) if asked else Amount()

    def _answered(self) -> tuple[int, Amount]:
        """Return how many answers the journal holds, and what they cost."""
        used = self.journal.used()
        by_fingerprint = {one.fingerprint: one for one in self.prepared.job.settings.endpoints.values()}
        spent = Amount()
        for member, (_, read, written) in used.items():
            endpoint = by_fingerprint.get(member)
            spent += amount(read + written, 0.0 if endpoint is None else usd_of(endpoint, read, written) or 0.0)
        return sum(count for count, _, _ in used.values()), spent


def ledger_of(backend: Backend) -> Ledger | None:
    """Return the ledger that a backend pays from, or None where it pays nothing."""
    purse = backend.purse if isinstance(backend, ApiBackend) else None
    return purse if isinstance(purse, Ledger) else None


def known_to(backend: Backend) -> Callable[[str, Request], bool]:
    """Return who says, by an endpoint's fingerprint, whether a backend knows an answer without asking."""
    if not isinstance(backend, ApiBackend):
        return lambda *_: False
    return lambda endpoint, request: backend.answers.get(endpoint, request) is not None
