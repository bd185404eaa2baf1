"""The conformance suite of search strategies: what every one of them must do, ours and other people's.

    def test_my_strategy() -> None:
        check_strategy(lambda genes, start, seed: MyStrategy(len(genes), start, seed))

It needs no test framework: a broken promise is an `AssertionError` that says which. `CHECKS` are the single promises,
for those who want a test each. How well a strategy searches is not its business.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from evomerge.recipe.holes import Hole
from evomerge.recipe.space import Gene, Vector
from evomerge.strategies.search.protocol import Proposal, Result, Strategy

Factory = Callable[[Sequence[Gene], Vector, int], Strategy]
"""Makes a new strategy for genes, a start and a seed."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The strategy under test, and the numbers of genes it is tried with: one, a few, many.

    With several `objectives` every promise is asked for with as many numbers in place of one.
    """

    make: Factory
    few: int = 6
    many: int = 200
    objectives: int = 1

    def new(self, genes: int | None = None, seed: int = 7) -> Strategy:
        """Return a new strategy."""
        number = self.few if genes is None else genes
        holes = [Gene(f"weight{i}", Hole(low=0.0, high=1.0)) for i in range(number)]
        strategy = self.make(holes, (0.5,) * number, seed)
        return strategy if self.objectives == 1 else _Widened(strategy, self.objectives)


Fitness = Callable[[Proposal], float | None]
"""The fitness of a proposal, or None for one that fails."""

Event = int | tuple[Result, ...]
"""One line of a log: a number of proposals asked for, or the results told."""


def check_strategy(make: Factory, *, few: int = 6, many: int = 200, objectives: int = 1) -> None:
    """Raise AssertionError at the first promise that the strategy breaks.

    `few` and `many` are numbers of genes; a strategy that cannot have many (a grid) is tried with as many as it can.
    `objectives` is how many numbers it is told of each proposal.
    """
    subject = Subject(make, few, many, objectives)
    for check in CHECKS:
        check(subject)


def proposes_points_of_the_unit_cube(subject: Subject) -> None:
    """Vectors have one finite number in [0, 1] a gene, as a tuple of floats; ids count from 0."""
    for genes in (1, subject.few, subject.many):
        strategy = subject.new(genes)
        asked = _search(strategy, 30, _bumpy)
        _require([proposal.id for proposal in asked] == list(range(len(asked))), "ids must count proposals from 0")
        for vector in [proposal.vector for proposal in asked] + strategy.finalists():
            _require(type(vector) is tuple and len(vector) == genes, f"a vector of {genes} genes is {vector!r}")
            _require(all(type(number) is float for number in vector), "a vector holds Python floats")
            _require(all(0.0 <= number <= 1.0 for number in vector), f"{vector!r} lies outside the unit cube")


def keeps_proposing_new_points(subject: Subject) -> None:
    """Most proposals are new points, also after many trials: a distribution that has collapsed searches no more."""
    asked = [proposal.vector for proposal in _search(subject.new(), 200, _bumpy)]
    late = asked[len(asked) // 2 :]
    _require(len(set(late)) > len(late) // 2, "the same points are proposed again and again")


def depends_on_the_seed_alone(subject: Subject) -> None:
    """The same seed and results give the same proposals, whatever the global random states are."""
    with _global_states(1):
        first = _search(subject.new(), 60, _bumpy)
    with _global_states(2):
        second = _search(subject.new(), 60, _bumpy)
    _require(first == second, "two strategies with the same seed and results propose differently")


def leaves_global_random_states_alone(subject: Subject) -> None:
    """Neither `random` nor numpy's global generator is drawn from or seeded."""
    import numpy as np

    with _global_states(3):
        before = (random.getstate(), str(np.random.get_state()))  # noqa: NPY002  # it is what is looked at
        strategy = subject.new()
        _search(strategy, 30, _bumpy)
        strategy.finalists()
        after = (random.getstate(), str(np.random.get_state()))  # noqa: NPY002
    _require(before == after, "a global random state was used")


def replays_its_log(subject: Subject) -> None:
    """A new instance fed with a log proposes what the log holds: with proposals outstanding, and told out of order."""
    for seed in range(3):
        log, asked, finalists = _tangled(subject.new(), seed)
        with _global_states(seed):
            again = subject.new()
            _require(_replay(again, log) == asked, "a replayed log gives other proposals")
        _require(again.finalists() == finalists, "a replayed log gives other finalists")


def knows_no_batches(subject: Subject) -> None:
    """Asking for three is asking three times for one, and telling three is telling one after the other."""
    log, asked, _ = _tangled(subject.new(), 5)
    single: list[Event] = []
    for event in log:
        single += [1] * event if isinstance(event, int) else [(result,) for result in event]
    _require(_replay(subject.new(), single) == asked, "how asks and tells are grouped changes the proposals")


def finalists_are_only_read(subject: Subject) -> None:
    """Asking for the finalists changes nothing that is proposed afterwards."""
    log, asked, _ = _tangled(subject.new(), 6)
    strategy, replayed = subject.new(), list[Proposal]()
    for event in log:
        replayed += _replay(strategy, [event])
        strategy.finalists()
    _require(replayed == asked, "looking at the finalists changes the search")


def refuses_wrong_results(subject: Subject) -> None:
    """Unknown ids, ids told twice and numbers that are none are ValueErrors, and nothing of such a call is learnt."""
    log, asked, _ = _tangled(subject.new(), 8)
    strategy = subject.new()
    replayed: list[Proposal] = []
    for event in log:
        replayed += _replay(strategy, [event])
        unknown = len(replayed)
        _refused(strategy, [_scored(unknown, 1.0)], "an id that was never asked")
        _refused(strategy, [_scored(-1, 1.0)], "a negative id")
        if isinstance(event, tuple) and event:
            _refused(strategy, [event[0]], "an id that was told before")
    _require(replayed == asked, "a refused tell changes the search")
    strategy = subject.new()
    number = strategy.ask(1)[0].id
    for bad in (float("nan"), float("inf"), float("-inf")):
        _refused(strategy, [_scored(number, bad)], f"a fitness of {bad}")
    _refused(strategy, [Result(number, "scored")], "a scored result without a fitness")
    _refused(strategy, [_scored(number, 1.0), _scored(number, 1.0)], "an id twice in one call")
    _refused(strategy, [_scored(number, 1.0), _scored(number + 1, 1.0)], "a known and an unknown id")
    try:
        strategy.tell([_scored(number, 1.0)])
    except ValueError as error:
        raise AssertionError(f"a call that is refused must leave its results untold: {error}") from error


def refuses_to_ask_for_less_than_nothing(subject: Subject) -> None:
    """`ask(0)` is empty, and a negative number is a ValueError."""
    strategy = subject.new()
    _require(strategy.ask(0) == [], "ask(0) must return nothing")
    try:
        strategy.ask(-1)
    except ValueError:
        return
    raise AssertionError("ask(-1) was accepted")


def survives_failures(subject: Subject) -> None:
    """All proposals may fail, or all but a few, from the start or later on."""
    fates: list[Fitness] = [
        lambda _: None,
        lambda proposal: None if proposal.id < 25 else _bumpy(proposal),
        lambda proposal: None if proposal.id % 3 else _bumpy(proposal),
        lambda proposal: None if proposal.vector[0] < 0.5 else _bumpy(proposal),
    ]
    for fate in fates:
        strategy = subject.new()
        _search(strategy, 120, fate)
        _in_cube(strategy.finalists())


def survives_strange_fitness(subject: Subject) -> None:
    """A constant, two values only, huge and tiny numbers, and a fitness that falls all the time."""
    fates: list[Fitness] = [
        lambda _: 0.0,
        lambda proposal: float(proposal.vector[0] > 0.5),
        lambda proposal: 1e12 * sum(proposal.vector),
        lambda proposal: 1e-300 * sum(proposal.vector),
        lambda proposal: -float(proposal.id),
    ]
    for fate in fates:
        for genes in (1, subject.few):
            strategy = subject.new(genes)
            _search(strategy, 150, fate)
            _in_cube(strategy.finalists())


def ends_when_done(subject: Subject) -> None:
    """Fewer proposals than asked for come only from a strategy that is done, and then no more come."""
    strategy = subject.new(1)
    asked = strategy.ask(40)
    if len(asked) < 40:
        _require(strategy.done, "fewer proposals than asked for, and the strategy is not done")
        _require(strategy.ask(1) == [], "a strategy that is done still proposes")
    else:
        _require(not strategy.done, "the strategy is done, and has proposed all that it was asked for")
    strategy.tell([_scored(proposal.id, 1.0) for proposal in reversed(asked)])


CHECKS: tuple[Callable[[Subject], None], ...] = (
    proposes_points_of_the_unit_cube,
    keeps_proposing_new_points,
    depends_on_the_seed_alone,
    leaves_global_random_states_alone,
    replays_its_log,
    knows_no_batches,
    finalists_are_only_read,
    refuses_wrong_results,
    refuses_to_ask_for_less_than_nothing,
    survives_failures,
    survives_strange_fitness,
    ends_when_done,
)


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise AssertionError(sentence)


def _refused(strategy: Strategy, results: Sequence[Result], what: str) -> None:
    try:
        strategy.tell(results)
    except ValueError:
        return
    raise AssertionError(f"telling {what} was accepted")


def _in_cube(vectors: Sequence[Vector]) -> None:
    _require(all(0.0 <= x <= 1.0 for vector in vectors for x in vector), "a finalist lies outside the unit cube")


def _scored(number: int, fitness: float) -> Result:
    return Result(number, "scored", (fitness,))


def _result(proposal: Proposal, fitness: Fitness) -> Result:
    value = fitness(proposal)
    return Result(proposal.id, "failed") if value is None else _scored(proposal.id, value)


def _bumpy(proposal: Proposal) -> float:
    """A fitness without ties, best somewhere off the centre, and uneven."""
    return -sum((x - 0.3) ** 2 * (1 + i % 3) + 0.01 * ((17 * x) % 1) for i, x in enumerate(proposal.vector))


def _search(strategy: Strategy, trials: int, fitness: Fitness) -> list[Proposal]:
    """Ask and tell one at a time; return what was proposed."""
    asked: list[Proposal] = []
    while len(asked) < trials and not strategy.done:
        (proposal,) = strategy.ask(1)
        asked.append(proposal)
        strategy.tell([_result(proposal, fitness)])
    return asked


def _tangled(strategy: Strategy, seed: int) -> tuple[list[Event], list[Proposal], list[Vector]]:
    """Search with many proposals outstanding, told in any order, some failed; return log, proposals and finalists."""
    dice = random.Random(seed)  # noqa: S311  # a test's plan, no secret
    log: list[Event] = []
    asked: list[Proposal] = []
    outstanding: list[Proposal] = []
    while len(asked) < 150 and not strategy.done:
        number = dice.randint(1, 9)
        new = strategy.ask(number)
        log.append(number)
        asked += new
        outstanding += new
        dice.shuffle(outstanding)
        told = tuple(
            _result(outstanding.pop(), lambda proposal: None if dice.random() < 0.1 else _bumpy(proposal))
            for _ in range(dice.randint(0, len(outstanding)))
        )
        strategy.tell(told)
        log.append(told)
    return log, asked, strategy.finalists()


def _replay(strategy: Strategy, log: Sequence[Event]) -> list[Proposal]:
    asked: list[Proposal] = []
    for event in log:
        if isinstance(event, int):
            asked += strategy.ask(event)
        else:
            strategy.tell(event)
    return asked


class _Widened:
    """A strategy that is told several objectives for each: the one it is given, and others that pull against it."""

    def __init__(self, strategy: Strategy, objectives: int) -> None:
        self._strategy = strategy
        self._factors = [(-1) ** place * 2.0**-place for place in range(objectives)]

    @property
    def done(self) -> bool:
        return self._strategy.done

    def ask(self, n: int) -> list[Proposal]:
        return self._strategy.ask(n)

    def tell(self, results: Sequence[Result]) -> None:
        self._strategy.tell([replace(result, objectives=self._several(result)) for result in results])

    def finalists(self) -> list[Vector]:
        return self._strategy.finalists()

    def _several(self, result: Result) -> tuple[float, ...] | None:
        return None if result.objectives is None else tuple(result.objectives[0] * factor for factor in self._factors)


class _global_states:  # noqa: N801  # used like a function
    """Seed the global random states inside, and put them back afterwards."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __enter__(self) -> None:
        import numpy as np

        self._saved: tuple[Any, Any] = (random.getstate(), np.random.get_state())  # noqa: NPY002
        random.seed(self._seed)
        np.random.seed(self._seed)  # noqa: NPY002

    def __exit__(self, *error: object) -> None:
        import numpy as np

        random.setstate(self._saved[0])
        np.random.set_state(self._saved[1])  # noqa: NPY002
