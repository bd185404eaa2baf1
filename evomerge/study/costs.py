"""What asking the endpoints of a job costs at most, and at the very least, before anything is asked. Pure.

Every endpoint is asked every item once, on each split: baselines and trials are arithmetic on those answers. A request
that fails may be asked again, which no bound counts; that a budget holds is the ledger's work, not these sums'.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evomerge.backends.api.money import Amount, Budget, Part, amount
from evomerge.backends.api.prices import prices_of, tokens_at_least, tokens_at_most, usd_of
from evomerge.backends.api.settings import EndpointSettings
from evomerge.exchange import Request
from evomerge.recipe.reading import Document
from evomerge.tasks.settings import SPLITS, Split

if TYPE_CHECKING:
    from evomerge.study.job import JobSettings
    from evomerge.study.prepare import Prepared


@dataclass(frozen=True, slots=True)
class Cost:
    """What one endpoint is asked on one split: requests, and tokens read and written at most.

    `usd` is what they cost at most, None where nobody knows the prices; `least` is an amount that they cost in any
    case; `cached` are further requests whose answers are known already and cost nothing.
    """

    endpoint: str
    split: Split
    requests: int
    read: int
    written: int
    usd: float | None
    least: Amount
    cached: int = 0

    @property
    def most(self) -> Amount:
        """The highest cost."""
        return amount(self.read + self.written, self.usd or 0.0)


def costs(prepared: "Prepared", known: Callable[[str, Request], bool] = lambda *_: False) -> tuple[Cost, ...]:
    """Return what each endpoint is asked on each split; `known` says by fingerprint whether an answer is there."""
    found: list[Cost] = []
    for split in SPLITS:
        requests = [task.request(item, split) for task in prepared.tasks for item in task.items(split)]
        for name, endpoint in prepared.job.settings.endpoints.items():
            asked = [request for request in requests if not known(endpoint.fingerprint, request)]
            found.append(_cost(name, endpoint, split, asked, len(requests) - len(asked)))
    return tuple(found)


def _cost(name: str, endpoint: EndpointSettings, split: Split, asked: Sequence[Request], cached: int) -> Cost:
    most = [tokens_at_most(endpoint, request) for request in asked]
    read, written = sum(one[0] for one in most), sum(one[1] for one in most)
    least = [tokens_at_least(request) for request in asked]
    read_least = sum(least) - len(least)
    usd_least = usd_of(endpoint, read_least, len(least)) or 0.0
    usd = usd_of(endpoint, read, written)
    return Cost(name, split, len(asked), read, written, usd, amount(sum(least), usd_least), cached)


def total(of: Iterable[Cost]) -> Amount:
    """Return the highest cost of all."""
    return sum((one.most for one in of), Amount())


def budget_of(prepared: "Prepared") -> Budget:
    """Return the money and tokens that a job may spend."""
    settings = prepared.job.settings.budget
    return Budget(settings.usd, settings.tokens)


def check_prices(document: Document, settings: "JobSettings") -> None:
    """Raise ConfigError, naming the key, for a budget in money where an endpoint's prices are not known.

    And for a budget that nothing is counted against.
    """
    budget, endpoints = settings.budget, settings.endpoints
    if not endpoints and (budget.usd is not None or budget.tokens is not None):
        key = "usd" if budget.usd is not None else "tokens"
        raise document.error(
            ("budget", key), "only endpoints are paid for, and this job asks none; limit hours or search.trials instead"
        )
    if budget.usd is None:
        return
    for name, endpoint in endpoints.items():
        if prices_of(endpoint) is None:
            raise document.error(
                ("endpoints", name, "usd_per_mtok"),
                f"budget.usd is set, and nobody knows what {endpoint.model} at {endpoint.host} costs; name the USD for "
                "a million tokens read and written, as in [0.1, 0.4] ([0, 0] for one that costs nothing)",
            )


def check_budget(prepared: "Prepared", planned: Sequence[Cost], spent: Amount) -> str | None:
    """Return a sentence where the budget may not cover what is still to be asked, None where it surely does.

    Raises ConfigError where it surely does not even cover a pass over the members: nothing is spent in vain.
    """
    budget = budget_of(prepared)
    for what, of in (("the search's pass over the members", ["search"]), ("search, selection and test", list(SPLITS))):
        least = sum((one.least for one in planned if one.split in of), Amount())
        part = budget.lacks(spent + least) if least != Amount() else None
        if part is not None:
            raise prepared.job.document.error(("budget", part), _too_little(budget, part, what, spent, least))
    most = total(planned)
    part = budget.lacks(spent + most) if most != Amount() else None
    if part is None:
        return None
    return (
        f"budget.{part}: what is still to be asked may cost up to {most.said(part)}, and {_left(budget, part, spent)} "
        "is left; the true cost is mostly far lower, and where the budget ends first, the study stops and can go on"
    )


def _too_little(budget: Budget, part: Part, what: str, spent: Amount, least: Amount) -> str:
    before = f" (of {budget.said(part)})" if spent != Amount() else ""
    return (
        f"{_left(budget, part, spent)} left{before} cannot even pay {what}, which takes {least.said(part)} or more; "
        "raise it, or take fewer items, shorter prompts or cheaper members"
    )


def _left(budget: Budget, part: Part, spent: Amount) -> str:
    if part == "usd":
        return amount(0, max((budget.usd or 0.0) - spent.usd, 0.0)).said("usd")
    return Amount(max((budget.tokens or 0) - spent.tokens, 0)).said("tokens")
