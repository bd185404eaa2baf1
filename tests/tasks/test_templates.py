from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evomerge.errors import ConfigError, SourceError
from evomerge.exchange import Message
from evomerge.tasks import Question, Task

Write = Callable[..., Path]
Load = Callable[..., Task]
ROWS: list[dict[str, Any]] = [{"question": f"q{n}", "answer": f"a{n}", "n": n, "my field": "x"} for n in range(5)]


def first_line(task: Task) -> Question:
    return next(
        question for questions in task.questions.values() for question in questions.values() if question.item.line == 1
    )


def test_fields_are_filled_in(write: Write, load: Load) -> None:
    write("data.jsonl", ROWS)
    assert (
        first_line(load(prompt="Q: {{question}} ({{n + 1}}, {{item['my field']}})\nA:\n")).prompt
        == "Q: q0 (1, x)\nA:\n"
    )


def test_messages_are_filled_in_one_by_one(write: Write, load: Load) -> None:
    write("data.jsonl", ROWS)
    turns = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "{{question}}"}]
    assert first_line(load(prompt=turns)).prompt == (Message("system", "Be short."), Message("user", "q0"))


def test_nothing_is_escaped(write: Write, load: Load) -> None:
    write("data.jsonl", [{"question": f"<{n}> & 'so'", "answer": "{{question}}"} for n in range(5)])
    question = first_line(load())
    assert (question.prompt, question.references) == ("<0> & 'so'", ("{{question}}",))


@pytest.mark.parametrize(
    ("reference", "found"),
    [(None, ("a0",)), ("n", ("0",)), ("{{answer}}!", ("a0!",)), ("my field", ("x",)), ("all", ("one", "2"))],
)
def test_a_reference_is_a_field_or_a_template(
    write: Write, load: Load, reference: str | None, found: tuple[str, ...]
) -> None:
    write("data.jsonl", [{**row, "all": ["one", 2]} for row in ROWS])
    assert first_line(load(**({} if reference is None else {"reference": reference}))).references == found


def test_choices_are_a_list_or_templates_and_a_position_becomes_a_choice(write: Write, load: Load) -> None:
    write("data.jsonl", [{"question": f"q{n}", "options": ["yes", "no"], "label": 1, "other": "x"} for n in range(5)])
    listed = load(score="choice", choices="options", reference="{{options[label]}}")
    assert (first_line(listed).choices, first_line(listed).references) == (("yes", "no"), ("no",))
    lettered = load(score="choice", choices=["A {{other}}", "B"], reference="{{'AB'[label]}}")
    assert first_line(lettered).choices == ("A x", "B")


def test_a_field_that_is_not_there_is_one_sentence_with_task_file_line_and_fields(write: Write, load: Load) -> None:
    write("data.jsonl", [*ROWS, {"query": "q5", "answer": "a5"}])
    with pytest.raises(SourceError) as caught:
        load()
    assert str(caught.value) == (
        "task 'sums': prompt: the template cannot be filled in at data.jsonl:6: 'question' is undefined; "
        "the fields there are 'query', 'answer'"
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"prompt": "{{question.word}}"}, "has no attribute 'word'"),
        ({"prompt": "{{question + 1}}"}, "TypeError"),
        ({"prompt": "{{1 // n}}"}, "ZeroDivisionError"),
        ({"prompt": "{{question.__class__.__mro__}}"}, "prompt: the template cannot be filled in at data.jsonl:1"),
        ({"prompt": "{{ ''.__class__.__base__.__subclasses__() }}{{question}}"}, "unsafe"),
        ({"prompt": "{{ tags.append(1) }}{{question}}"}, "unsafe"),
        ({"reference": "solution"}, "reference: there is no field 'solution' at data.jsonl:1; the fields there are"),
        ({"reference": "nothing"}, "reference: the field 'nothing' at data.jsonl:1 holds null"),
        ({"reference": "none"}, "reference: the field 'none' at data.jsonl:1 holds an empty list"),
        ({"reference": "deep"}, "reference: the field 'deep' at data.jsonl:1 holds a list in a list"),
        ({"score": "choice", "choices": "question"}, "choices: the field 'question' at data.jsonl:1 is no list"),
        ({"score": "choice", "choices": "gone"}, "choices: there is no field 'gone' at data.jsonl:1"),
        ({"score": "choice", "choices": "{{tags}}"}, "choices: a template gives one text"),
        ({"prompt": "{{question"}, "prompt: this is no Jinja template"),
        ({"prompt": "{% for a in b %}{{a}}"}, "prompt: this is no Jinja template"),
        ({"prompt": "{% include '/etc/passwd' %}"}, "prompt: the template cannot be filled in"),
        ({"prompt": [{"role": "user", "content": "{{gone}}"}]}, "prompt[0].content: the template cannot be filled in"),
    ],
)
def test_what_cannot_be_filled_in_is_one_sentence(
    write: Write, load: Load, settings: dict[str, Any], words: str
) -> None:
    write("data.jsonl", [{**row, "nothing": None, "none": [], "deep": [[1]], "tags": ["a"]} for row in ROWS])
    with pytest.raises(ConfigError) as caught:
        load(**settings)
    text = str(caught.value)
    assert text.startswith("task 'sums': ")
    assert words in text
    assert "\n" not in text


def test_a_task_without_an_answer_is_told_to_name_one(write: Write, load: Load) -> None:
    write("data.jsonl", [{"question": f"q{n}", "solution": "x"} for n in range(5)])
    with pytest.raises(SourceError, match=r"there is no field 'answer' at data\.jsonl:\d; name the field .*'solution'"):
        load()
    assert load(score={"regex": "x", "compare": False}).items("test")
