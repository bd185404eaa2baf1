"""methods and schema: what there is to know without any model."""

import json
from pathlib import Path

import pytest

from evomerge.strategies.ensemble.registry import combiners
from evomerge.strategies.merge.registry import methods
from tests.cli.conftest import Command


def test_methods_lists_every_method_on_a_line_with_its_source(command: Command) -> None:
    lines = command("methods").out.splitlines()
    for method in methods().values():
        [line] = [line for line in lines if line.split()[:1] == [method.name]]
        assert method.title in line
        assert method.source in line


def test_methods_lists_the_combiners_and_shows_one_with_its_parameters(command: Command) -> None:
    [line] = [line for line in command("methods").out.splitlines() if line.split()[:1] == ["vote"]]
    assert combiners()["vote"].title in line
    assert command("methods", "vote").out.splitlines()[-1].split()[:3] == ["weight", "│", "member"]


@pytest.mark.parametrize("name", sorted(methods()))
def test_a_method_is_shown_with_all_its_parameters(name: str, command: Command) -> None:
    lines = command("methods", name).out.splitlines()
    assert lines[0].startswith(f"{name}  ")
    assert {parameter.name for parameter in methods()[name].parameters} == {line.split()[0] for line in lines[4:]}


def test_the_schema_is_json_that_knows_every_key_of_a_job(command: Command) -> None:
    done = command("schema")
    assert done.err == ""
    schema = json.loads(done.out)
    assert {"recipe", "tasks", "splits", "search", "backend", "budget"} <= schema["properties"].keys()
    assert schema["additionalProperties"] is False


def test_schema_check_tells_a_file_that_is_old_from_one_that_is_not(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = command("schema").out
    monkeypatch.chdir(tmp_path)
    assert command("schema", "--check").code == 78
    Path("configs").mkdir()
    Path("configs/schema.json").write_text(text.replace("evomerge job", "another job"))
    old = command("schema", "--check")
    assert (old.code, old.out) == (78, "")
    assert "run `evomerge schema > configs/schema.json`" in old.err
    Path("configs/schema.json").write_text(text)
    assert command("schema", "--check").code == 0
