"""The registry of dialects: ours, and those of other packages."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from evomerge.backends.api.dialects import registry
from evomerge.backends.api.dialects.registry import dialect, dialects, get
from evomerge.backends.api.settings import EndpointSettings
from evomerge.errors import ConfigError
from evomerge.exchange import Generate
from tests.backends.api.dialects.asking import ask
from tests.support.endpoint import chat_server

PLUGIN = """\
from evomerge.backends.api.dialects.openai_chat import OpenAIChat
from evomerge.backends.api.dialects.registry import dialect

@dialect("{name}")
class Ours(OpenAIChat):
    def body(self, endpoint, request):
        return {{**super().body(endpoint, request), "own": "{name}"}}
"""


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages, of which no trace is left afterwards."""
    dialects()
    before = dict(registry._declared)
    monkeypatch.syspath_prepend(tmp_path)
    registry._load.cache_clear()
    yield tmp_path
    registry._declared.clear()
    registry._declared.update(before)
    registry._load.cache_clear()


def install(folder: Path, module: str, source: str) -> None:
    (folder / f"{module}.py").write_text(source)
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[evomerge.dialects]\n{module} = {module}\n")


def test_the_dialects_of_the_house_are_there() -> None:
    assert {"anthropic", "completions", "openai"} <= set(dialects())


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="there is no dialect 'opnai'; did you mean 'openai'"):
        get("opnai")


def test_two_classes_of_one_name_are_refused() -> None:
    dialects()
    with pytest.raises(ValueError, match="the dialect 'openai' is declared twice"):

        @dialect("openai")
        class _Other:  # pyright: ignore[reportUnusedClass]  # it is refused
            pass


def test_a_dialect_of_another_package_is_spoken(plugins: Path) -> None:
    install(plugins, "ours_elsewhere", PLUGIN.format(name="elsewhere"))
    with chat_server(lambda prompt: prompt) as server:
        assert ask(server, Generate("hello"), dialect="elsewhere").text == "hello"
    assert server.bodies[0]["own"] == "elsewhere"
    assert EndpointSettings(url="http://host/v1", model="m", dialect="elsewhere").dialect == "elsewhere"


def test_a_package_that_cannot_be_imported_harms_nobody_else(plugins: Path) -> None:
    install(plugins, "broken_dialect", PLUGIN.format(name="half") + "\nimport nothing_of_this_name\n")
    with pytest.warns(RuntimeWarning, match="the dialects of broken_dialect .* are left out: ModuleNotFoundError"):
        assert "half" not in dialects()
    assert "openai" in dialects()
