"""Whose turn it is: never more than the slots, never one alone with others, and nobody waits for ever."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.backends.vllm.turns import Turns

Visit = tuple[bool, int, bool]
"""Whether somebody wants to be alone, how many steps of the loop they stay, and whether they are cancelled."""


@given(slots=st.integers(1, 3), visits=st.lists(st.tuples(st.booleans(), st.integers(0, 4), st.booleans()), max_size=9))
def test_visits_never_collide_and_all_come_to_their_end(slots: int, visits: Sequence[Visit]) -> None:
    asyncio.run(asyncio.wait_for(_visited(slots, visits), 20))


async def _visited(slots: int, visits: Sequence[Visit]) -> None:
    turns, inside = Turns(slots), {True: 0, False: 0}

    async def visit(alone: bool, steps: int) -> None:
        async with turns.alone() if alone else turns.shared():
            inside[alone] += 1
            for _ in range(steps + 1):
                assert inside[True] + (inside[False] > 0) <= 1
                assert inside[False] <= slots
                try:
                    await asyncio.sleep(0)
                except asyncio.CancelledError:
                    inside[alone] -= 1
                    raise
            inside[alone] -= 1

    tasks = [asyncio.create_task(visit(alone, steps)) for alone, steps, _ in visits]
    for task, (_, steps, cancelled) in zip(tasks, visits, strict=True):
        if cancelled:
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert not [one for one in ended if isinstance(one, BaseException) and not isinstance(one, asyncio.CancelledError)]
    async with turns.alone():  # nobody left anything behind
        assert inside == {True: 0, False: 0}


def test_who_wants_to_be_alone_is_not_overtaken() -> None:
    async def run() -> list[str]:
        turns, order = Turns(2), []
        first_may_go = asyncio.Event()

        async def first() -> None:
            async with turns.shared():
                await first_may_go.wait()

        async def then(name: str, *, alone: bool) -> None:
            async with turns.alone() if alone else turns.shared():
                order.append(name)

        tasks = [asyncio.create_task(first())]
        await asyncio.sleep(0)
        tasks += [asyncio.create_task(then("alone", alone=True)), asyncio.create_task(then("shared", alone=False))]
        for _ in range(3):
            await asyncio.sleep(0)
        assert order == []
        first_may_go.set()
        await asyncio.gather(*tasks)
        return order

    assert asyncio.run(run()) == ["alone", "shared"]


def test_what_fails_inside_frees_the_slot() -> None:
    async def run() -> None:
        turns = Turns(1)
        with pytest.raises(ValueError, match="inside"):
            async with turns.shared():
                raise ValueError("inside")
        async with turns.alone():
            pass

    asyncio.run(asyncio.wait_for(run(), 20))
