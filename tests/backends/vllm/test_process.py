import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from evomerge.backends.vllm import watch
from evomerge.backends.vllm.process import Adapters, Address, Process, server_command, server_environment
from evomerge.backends.vllm.settings import VllmSettings
from evomerge.errors import ConfigError
from tests.support.vllm import wait_for

GROUP = """
import os, signal, subprocess, sys, time
deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN)" if "deaf" in sys.argv else ""
code = "import signal, time\\n" + deaf + "\\nprint('here', flush=True)\\ntime.sleep(600)"
below = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
below.stdout.readline()
exec(deaf)
print("ready", flush=True)
if "quits" in sys.argv:
    sys.exit(7)
time.sleep(600)
"""
"""A program with a process below it, which both end as they are told; it says when both are there."""

ADDRESS = Address(1234, "the-key")


def started(folder: Path, *words: str, grace: float = 60) -> Process:
    """A group with a watcher, once all its processes are there."""
    process = Process([sys.executable, "-c", GROUP, *words], os.environ, folder / "log", grace)
    while "ready" not in process.said():
        assert process.running, process.said()
    return process


def settings(**given: object) -> VllmSettings:
    return VllmSettings.model_validate({"kind": "vllm", **given})


def test_a_group_ends_as_a_whole(tmp_path: Path) -> None:
    process = started(tmp_path)
    before = watch.members(process.group)
    assert len(before) == 3
    assert asyncio.run(process.end()) == 128 + signal.SIGTERM
    assert watch.members(process.group) == []
    assert not process.running
    assert asyncio.run(process.end()) == 128 + signal.SIGTERM


def test_who_does_not_hear_is_killed_after_the_grace(tmp_path: Path) -> None:
    process = started(tmp_path, "deaf", grace=0.2)
    assert asyncio.run(process.end()) == 128 + signal.SIGKILL
    assert watch.members(process.group) == []


def test_what_is_left_below_a_program_that_ended_ends_too(tmp_path: Path) -> None:
    process = started(tmp_path, "quits")
    wait_for(watch.members(process.group))
    assert asyncio.run(process.end()) == 7


def test_a_killed_program_takes_all_with_it(tmp_path: Path) -> None:
    process = started(tmp_path)
    others = sorted(set(watch.members(process.group)) - {process.group})
    os.kill(others[0], signal.SIGKILL)
    wait_for(others)
    assert asyncio.run(process.end()) == 128 + signal.SIGKILL


def test_a_killed_watcher_is_seen_and_the_rest_is_ended(tmp_path: Path) -> None:
    process = started(tmp_path)
    os.kill(process.group, signal.SIGKILL)
    wait_for([process.group])
    assert not process.running
    assert asyncio.run(process.end()) == -signal.SIGKILL
    assert watch.members(process.group) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_when_we_are_gone(tmp_path: Path, number: int) -> None:
    script = f"""
import os, sys, time
from pathlib import Path
from tests.backends.vllm.test_process import started
process = started(Path({str(tmp_path)!r}))
print(process.group, flush=True)
time.sleep(600)
"""
    us = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert us.stdout is not None
    group = int(us.stdout.readline())
    processes = watch.members(group)
    assert len(processes) == 3
    us.send_signal(number)
    us.wait()
    us.stdout.close()
    wait_for(processes)


def test_ending_that_is_cancelled_goes_on_without_us(tmp_path: Path) -> None:
    async def impatient(process: Process) -> None:
        ending = asyncio.create_task(process.end())
        await asyncio.sleep(0)
        ending.cancel()
        await asyncio.wait([ending])

    process = started(tmp_path)
    processes = watch.members(process.group)
    asyncio.run(impatient(process))
    wait_for(processes)
    asyncio.run(process.end())


def test_what_an_earlier_server_printed_is_not_taken_for_the_new_ones(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("ValueError: of another day\n")
    process = started(tmp_path, "quits")
    asyncio.run(process.end())
    assert process.said() == "ready\n"
    assert (tmp_path / "log").read_text().startswith("ValueError")


def test_addresses_are_free_and_ours_alone() -> None:
    one, two = Address.new(), Address.new()
    assert one.key != two.key
    assert one.key not in repr(one)
    with socket.socket() as free:
        free.bind(("127.0.0.1", one.port))


def test_the_key_is_in_the_environment_and_not_on_the_command_line() -> None:
    words = server_command(settings(), Path("python"), ["vllm"], Path("model"), ADDRESS, adapters=None)
    assert not any("the-key" in word for word in words)
    environment = server_environment(settings(), {}, ADDRESS, number=0, cpu=True)
    assert environment["VLLM_API_KEY"] == "the-key"


def test_arguments_are_written_as_vllm_reads_them() -> None:
    args = {"enforce-eager": True, "enable-prefix-caching": False, "max-model-len": 64, "allowed-origins": ["a", "b"]}
    words = server_command(settings(args=args), Path("python"), ["vllm"], Path("model"), ADDRESS, adapters=None)
    assert words[-6:] == [
        "--enforce-eager", "--no-enable-prefix-caching", "--max-model-len=64", "--allowed-origins", "a", "b"
    ]  # fmt: skip
    assert "--enable-lora" not in words


@pytest.mark.parametrize(("rank", "room"), [(1, 8), (8, 8), (9, 16), (300, 512)])
def test_there_is_room_for_the_highest_rank(rank: int, room: int) -> None:
    words = server_command(settings(), Path("python"), ["vllm"], Path("model"), ADDRESS, adapters=Adapters(4, rank))
    assert {"--enable-lora", "--max-loras=4", "--max-cpu-loras=4", f"--max-lora-rank={room}"} <= set(words)


def test_a_rank_beyond_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="up to rank 512, and one here may have rank 513"):
        server_command(settings(), Path("python"), ["vllm"], Path("model"), ADDRESS, adapters=Adapters(4, 513))


def test_what_the_user_set_stays_except_what_we_need() -> None:
    outside = {
        "HF_HUB_OFFLINE": "0",
        "VLLM_CPU_KVCACHE_SPACE": "4",
        "OMP_NUM_THREADS": "3",
        "VLLM_SERVER_DEV_MODE": "0",
    }
    environment = server_environment(settings(), outside, ADDRESS, number=0, cpu=True)
    assert environment["HF_HUB_OFFLINE"] == "0"
    assert environment["VLLM_CPU_KVCACHE_SPACE"] == "4"
    assert environment["OMP_NUM_THREADS"] == "3"
    assert environment["VLLM_SERVER_DEV_MODE"] == "1"


def test_servers_on_a_cpu_share_the_cores_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evomerge.backends.vllm.process._cores", lambda: 9)
    environment = server_environment(settings(gpus=4), {}, ADDRESS, number=1, cpu=True)
    assert environment["OMP_NUM_THREADS"] == "2"
    assert environment["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    monkeypatch.setattr("evomerge.backends.vllm.process._cores", lambda: 1)
    assert server_environment(settings(gpus=4), {}, ADDRESS, number=1, cpu=True)["OMP_NUM_THREADS"] == "1"


def test_who_binds_cores_does_it_alone() -> None:
    environment = server_environment(settings(), {"VLLM_CPU_OMP_THREADS_BIND": "0-3"}, ADDRESS, number=0, cpu=True)
    assert environment["VLLM_CPU_OMP_THREADS_BIND"] == "0-3"
    assert "OMP_NUM_THREADS" not in environment


def test_memory_for_the_cache_that_the_job_names_is_not_overruled() -> None:
    given = settings(args={"kv-cache-memory-bytes": 10_000_000})
    assert "VLLM_CPU_KVCACHE_SPACE" not in server_environment(given, {}, ADDRESS, number=0, cpu=True)


@pytest.mark.parametrize(
    ("shown", "number", "slice_"), [(None, 0, "0,1"), (None, 1, "2,3"), ("4,5, 6,7,8", 1, "6,7"), ("a,b,c,d", 0, "a,b")]
)
def test_each_server_sees_its_slice_of_the_gpus_that_we_see(shown: str | None, number: int, slice_: str) -> None:
    outside = {} if shown is None else {"CUDA_VISIBLE_DEVICES": shown}
    environment = server_environment(settings(gpus=4, tensor_parallel=2), outside, ADDRESS, number=number, cpu=False)
    assert environment["CUDA_VISIBLE_DEVICES"] == slice_
    assert "VLLM_CPU_KVCACHE_SPACE" not in environment


def test_gpus_that_are_not_shown_cannot_be_used() -> None:
    with pytest.raises(ConfigError, match="gpus is 2, and CUDA_VISIBLE_DEVICES shows 1"):
        server_environment(settings(gpus=2), {"CUDA_VISIBLE_DEVICES": "3"}, ADDRESS, number=0, cpu=False)
