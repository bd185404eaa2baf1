"""Three models that add numbers, real servers on loopback, and an ensemble of them served by a process of its own."""

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.endpoint import ChatServer
from tests.support.served import Served, served, write_recipe

NAMES = ("red", "green", "blue")
KEY = "a-key-of-the-clients"


def says(text: str) -> "ChatServer":
    return ChatServer(lambda _: text)


@pytest.fixture(scope="module")
def members() -> Generator[dict[str, ChatServer]]:
    """Three models that all answer 7, each in its own words; tests change what they answer."""
    running = {name: says(f"{name} makes 7.0") for name in NAMES}
    yield running
    for server in running.values():
        server.close()


@pytest.fixture(scope="module")
def server(members: dict[str, ChatServer], tmp_path_factory: pytest.TempPathFactory) -> Generator[Served]:
    """The ensemble, served with keys and small limits."""
    folder = tmp_path_factory.mktemp("serve") / "ensemble"
    write_recipe(folder, members, each=", timeout: 60")
    with served(folder, "--deadline", "2", "--in-flight", "4") as running:
        yield running


@pytest.fixture
def voters(members: dict[str, ChatServer]) -> Generator[dict[str, ChatServer]]:
    """The members, as they were again afterwards."""
    yield members
    for name, member in members.items():
        member.hold_after(None)
        member.answer = lambda _, name=name: f"{name} makes 7.0"


@pytest.fixture
def ensemble(tmp_path: Path, members: dict[str, ChatServer]) -> Path:
    """The folder of an ensemble that a test serves itself."""
    write_recipe(tmp_path / "ensemble", members)
    return tmp_path / "ensemble"
