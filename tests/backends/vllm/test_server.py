import asyncio
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from evomerge.backends.vllm import watch
from evomerge.backends.vllm.link import Link, Refused
from evomerge.backends.vllm.server import Server
from evomerge.backends.vllm.settings import VllmSettings
from evomerge.errors import BackendError, ConfigError
from tests.support.require import REPOSITORY
from tests.support.vllm import wait_for

TINY = REPOSITORY / "zoo" / "tiny" / "base"


def server(folder: Path, told: list[str], python: Path = Path(sys.executable), **settings: Any) -> Server:
    return Server(
        VllmSettings.model_validate({"kind": "vllm", "dtype": "float32", **settings}),
        python,
        TINY,
        name="vLLM 1",
        log=folder / "study" / "vllm-1.log",
        number=0,
        adapters=None,
        tell=told.append,
        pauses=(0, 0),
        grace=20,
    )


def used(given: Server, use: Callable[[Server], Awaitable[None]]) -> None:
    """Do something with a server; afterwards no process of it is left, whatever was done."""

    async def run() -> None:
        try:
            await use(given)
        finally:
            await given.stop()
            await given.stop()
            assert given.process is None or watch.members(given.process.group) == []

    asyncio.run(run())


def listens(url: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(url.rpartition(":")[2]))) == 0


def test_a_server_starts_when_it_is_needed_and_is_kept(stand_in: Path, tmp_path: Path) -> None:
    told: list[str] = []

    async def use(ours: Server) -> None:
        assert ours.starts == 0
        links = await asyncio.gather(*(ours.ready() for _ in range(5)))
        assert ours.starts == 1
        assert all(link is links[0] for link in links)
        assert await ours.ready() is links[0]
        await ours.stop()
        assert not listens(links[0].url)

    used(server(tmp_path, told), use)
    assert told[0].startswith("vLLM 1: starting vLLM 99.0+cpu, which prints to ")
    assert told[1] == "vLLM 1: it knows the model"
    assert told[-1].startswith("vLLM 1: ready after ")


def test_it_starts_again_after_it_was_stopped(stand_in: Path, tmp_path: Path) -> None:
    async def use(ours: Server) -> None:
        await ours.ready()
        await ours.stop()
        assert await (await ours.ready()).healthy()
        assert ours.starts == 2

    used(server(tmp_path, []), use)


@pytest.mark.parametrize("victim", range(4), ids=["watcher", "server", "engine", "worker"])
def test_a_server_of_which_a_process_was_killed_is_started_anew(stand_in: Path, tmp_path: Path, victim: int) -> None:
    async def use(ours: Server) -> None:
        first = await ours.ready()
        assert ours.process is not None
        processes = sorted(watch.members(ours.process.group))
        os.kill(processes[victim], signal.SIGKILL)
        wait_for([processes[victim]])
        if victim < 3:  # what only the worker did is known to its engine alone, and the stand-in's does not look
            second = await ours.ready()
            assert second.url != first.url
            assert ours.starts == 2
            wait_for(processes)

    used(server(tmp_path, []), use)


def test_a_start_that_failed_in_passing_is_tried_again(
    stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN", "once")
    monkeypatch.setenv("STAND_IN_MARK", str(tmp_path / "mark"))
    told: list[str] = []

    async def use(ours: Server) -> None:
        await ours.ready()
        assert ours.starts == 2

    used(server(tmp_path, told), use)
    assert "vLLM 1: [Errno 98] Address already in use; the next start is in 0 seconds" in told


def test_a_server_that_never_comes_up_is_given_up_with_its_reason(
    stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN", "break")

    async def use(ours: Server) -> None:
        with pytest.raises(BackendError) as caught:
            await asyncio.gather(ours.ready(), ours.ready())
        log = tmp_path / "study" / "vllm-1.log"
        assert str(caught.value) == f"vLLM 1 did not start in 3 attempts: no memory is left (see {log})"
        assert ours.starts == 3

    used(server(tmp_path, []), use)


def test_what_vllm_refuses_is_not_tried_again(stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN", "refuse")

    async def use(ours: Server) -> None:
        with pytest.raises(
            ConfigError, match=r"cannot start: User-specified max_model_len \(128\) is greater than 64 \("
        ):
            await ours.ready()
        assert ours.starts == 1

    used(server(tmp_path, []), use)


def test_a_start_can_be_stopped_and_those_who_wait_are_told(
    stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN", "stuck")

    async def use(ours: Server) -> None:
        waiting = asyncio.create_task(ours.ready())
        await _both_are_there(ours)
        await ours.stop()
        with pytest.raises(BackendError, match="was stopped while it started"):
            await waiting

    used(server(tmp_path, []), use)


def test_who_no_longer_waits_does_not_stop_the_start_of_the_others(stand_in: Path, tmp_path: Path) -> None:
    async def use(ours: Server) -> None:
        one, other = asyncio.create_task(ours.ready()), asyncio.create_task(ours.ready())
        await _both_are_there(ours)
        one.cancel()
        assert await (await other).healthy()
        assert one.cancelled()
        assert ours.starts == 1

    used(server(tmp_path, []), use)


def test_a_program_that_ends_during_a_start_leaves_nothing(
    stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN", "stuck")
    ours = server(tmp_path, [])

    async def gives_up() -> None:
        task = asyncio.create_task(ours.ready())
        await _both_are_there(ours)
        task.cancel()

    asyncio.run(gives_up())
    assert ours.process is not None
    assert watch.members(ours.process.group) == []


def words_of(process: int) -> str:
    return Path(f"/proc/{process}/cmdline").read_text()


async def _both_are_there(ours: Server) -> None:
    while ours.process is None or "both are there" not in ours.process.said():  # noqa: ASYNC110  # what it prints
        await asyncio.sleep(0)


def test_a_python_without_vllm_is_named_before_anything_starts(tmp_path: Path) -> None:
    async def use(ours: Server) -> None:
        with pytest.raises(ConfigError, match=r"has no vLLM; install it there with: pip install 'evomerge\[vllm\]'"):
            await ours.ready()
        assert ours.starts == 0

    used(server(tmp_path, []), use)


def test_another_evomerge_is_named_before_anything_starts(stand_in: Path, tmp_path: Path) -> None:
    (stand_in / "evomerge").mkdir()
    (stand_in / "evomerge" / "__init__.py").touch()

    async def use(ours: Server) -> None:
        with pytest.raises(ConfigError, match="has no evomerge, and this is 0"):
            await ours.ready()
        (stand_in / "evomerge" / "version.py").write_text("__version__ = '0.0.9'")
        with pytest.raises(ConfigError, match=r"has evomerge 0\.0\.9, and this is 0"):
            await ours.ready()

    used(server(tmp_path, []), use)


@pytest.mark.parametrize("python", ["/nowhere/python", "/bin/cat"])
def test_what_is_no_python_is_named(tmp_path: Path, python: str) -> None:
    async def use(ours: Server) -> None:
        with pytest.raises(ConfigError, match=f"backend: python: {python} "):
            await ours.ready()

    used(server(tmp_path, [], Path(python)), use)


def test_without_the_key_only_health_is_told(stand_in: Path, tmp_path: Path) -> None:
    async def use(ours: Server) -> None:
        stranger = Link((await ours.ready()).url, None, 1)
        assert await stranger.healthy()
        with pytest.raises(Refused, match="401"):
            await stranger.call("evomerge_state", {})
        await stranger.close()

    used(server(tmp_path, []), use)


@pytest.mark.slow
def test_vllm_itself_is_started_guarded_killed_and_started_again(vllm_python: Path, tmp_path: Path) -> None:
    told: list[str] = []

    async def use(ours: Server) -> None:
        link = await ours.ready()
        assert [model["id"] for model in await link.models()] == ["base"]
        assert ours.process is not None
        key = link._headers["Authorization"].partition(" ")[2]
        assert key not in ours.process.said()
        processes = sorted(watch.members(ours.process.group))
        stranger = Link(link.url, None, 1)
        for asked in (stranger.models(), stranger.forget_prefixes(), stranger.call("evomerge_state", {})):
            with pytest.raises(Refused, match="401"):
                await asked
        await stranger.close()
        engine = next(one for one in processes if "EngineCore" in words_of(one))
        os.kill(engine, signal.SIGKILL)
        wait_for([engine])
        again = await ours.ready()
        assert ours.starts == 2
        wait_for(processes)
        assert [model["id"] for model in await again.models()] == ["base"]

    used(server(tmp_path, told, vllm_python, args={"enforce-eager": True}), use)
    assert [word for word in told if "it loads the weights" in word] == ["vLLM 1: it loads the weights"] * 2


@pytest.mark.slow
def test_what_vllm_itself_refuses_is_one_sentence(vllm_python: Path, tmp_path: Path) -> None:
    async def use(ours: Server) -> None:
        with pytest.raises(ConfigError, match=r"User-specified max_model_len \(128\) is greater than") as caught:
            await ours.ready()
        assert "\n" not in str(caught.value)

    used(server(tmp_path, [], vllm_python, args={"max-model-len": 128}), use)
