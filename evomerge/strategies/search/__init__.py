"""Search strategies: ask for points of the unit cube, tell their fitness.

`make_strategy` turns settings into a strategy, `strategy` registers a new one (one file, one decorated function), and
`evomerge.testing.strategies` holds what it must pass. nevergrad is loaded when a strategy that needs it is made.
"""

from evomerge.strategies.search.make import make_strategy
from evomerge.strategies.search.protocol import Proposal, Result, Strategy, StrategySettings
from evomerge.strategies.search.registry import strategy, strategy_names
from evomerge.strategies.search.settings import SearchSettings

__all__ = [
    "Proposal",
    "Result",
    "SearchSettings",
    "Strategy",
    "StrategySettings",
    "make_strategy",
    "strategy",
    "strategy_names",
]
