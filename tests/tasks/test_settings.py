import json
from typing import Any

import pytest
from pydantic import ValidationError

from evomerge.errors import ConfigError
from evomerge.exchange import Sampling
from evomerge.recipe.reading import parse_yaml
from evomerge.tasks import SPLITS, DataFiles, SplitSizes, TaskSettings

MINIMAL = {"name": "sums", "data": "a.jsonl", "prompt": "{{question}}", "score": "exact"}


def parse(**settings: Any) -> TaskSettings:
    return TaskSettings.model_validate_json(json.dumps(MINIMAL | settings), strict=True)


def test_a_task_of_four_lines_has_defaults_that_work() -> None:
    task = parse()
    assert task.sampling == Sampling(max_tokens=64, temperature=0.0, stop=())
    assert [task.data.of(split) for split in SPLITS] == ["a.jsonl"] * 3
    assert [task.scorer(split).name for split in SPLITS] == ["exact"] * 3
    assert (task.weight, task.reference, task.splits) == (1.0, None, SplitSizes())


def test_the_search_can_have_a_scorer_of_its_own() -> None:
    task = parse(search_by="likelihood")
    assert [task.scorer(split).name for split in SPLITS] == ["likelihood", "exact", "exact"]


def test_settings_are_written_as_they_are_read() -> None:
    task = parse(
        data={"search": "a.csv", "select": "a.csv", "test": "b.csv"},
        prompt=[{"role": "system", "content": "Be short."}, {"role": "user", "content": "{{question}}"}],
        score={"regex": "(a)", "group": 1}, choices=["{{a}}", "{{b}}"], stop=["\n"], splits={"test": 3},
    )  # fmt: skip
    assert TaskSettings.model_validate_json(task.model_dump_json(), strict=True) == task
    assert parse().model_dump()["data"] == "a.jsonl"


@pytest.mark.parametrize(
    ("settings", "location", "words"),
    [
        ({"prompt": "question"}, (), 'write one as "{{question}}"'),
        ({"prompt": [{"role": "user", "content": "hi"}]}, (), "no field in it"),
        ({"prompt": ""}, ("prompt", "text"), "at least 1 character"),
        ({"prompt": []}, ("prompt", "messages"), "at least 1 item"),
        ({"prompt": [{"role": "robot", "content": "{{q}}"}]}, ("prompt", "messages", 0, "role"), "'user'"),
        ({"data": {"search": "a.jsonl", "select": "b.jsonl"}}, ("data", "test"), "required"),
        ({"data": {"search": "a", "select": "b", "test": "c", "tset": "d"}}, ("data", "tset"), "not permitted"),
        ({"data": ""}, ("data", "search"), "at least 1 character"),
        ({"data": 5}, ("data",), "data is a path, or a map of three paths"),
        ({"name": ""}, ("name",), "is no name for a task"),
        ({"name": "../x"}, ("name",), "is no name for a task"),
        ({"name": "a/b"}, ("name",), "is no name for a task"),
        ({"max_tokens": 0}, ("max_tokens",), "greater than or equal to 1"),
        ({"max_tokens": "5"}, ("max_tokens",), "valid integer"),
        ({"temperature": -1}, ("temperature",), "greater than or equal to 0"),
        ({"weight": 0}, ("weight",), "greater than 0"),
        ({"stop": [""]}, ("stop", 0), "at least 1 character"),
        ({"stop": "\n"}, ("stop",), "valid array"),
        ({"splits": {"search": 0}}, ("splits", "search"), "greater than or equal to 1"),
        ({"choices": ["{{a}}"]}, ("choices", "templates"), "at least 2 items"),
        ({"scoer": "exact"}, ("scoer",), "not permitted"),
    ],
)
def test_what_cannot_be_is_refused_where_it_stands(
    settings: dict[str, Any], location: tuple[Any, ...], words: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        parse(**settings)
    first = caught.value.errors()[0]
    assert first["loc"] == location
    assert words in first["msg"]


def test_in_a_job_file_a_mistake_is_named_with_its_line() -> None:
    text = 'name: sums\ndata: a.jsonl\nprompt: "{{q}}"\nscore:\n  numeric: {tolerence: 1}\n'
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "job.yaml").parse(TaskSettings)
    assert str(caught.value) == "job.yaml:4: score: numeric: unknown key 'tolerence'; did you mean 'tolerance'?"


def test_sizes_of_the_task_come_before_those_of_the_job() -> None:
    assert SplitSizes(test=4).over(SplitSizes(search=5, test=7)) == SplitSizes(search=5, test=4)
    assert SplitSizes(test=4).over(None) == SplitSizes(test=4)
    assert SplitSizes().over(SplitSizes(select=2)) == SplitSizes(select=2)


def test_every_setting_is_described_in_the_schema() -> None:
    schema = TaskSettings.model_json_schema()
    assert all("description" in field or "$ref" in field for field in schema["properties"].values())
    assert all(
        "description" in option
        for name in ("SplitSizes", "PromptMessage")
        for option in schema["$defs"][name]["properties"].values()
    )
    path, files = schema["$defs"][DataFiles.__name__]["anyOf"]
    assert path["type"] == "string"
    assert files["required"] == list(SPLITS)
