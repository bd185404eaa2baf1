import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from evomerge.exchange import Answer, Likelihood
from evomerge.tasks import Item, Question, ScorerSettings, SplitSizes, Task, TaskSettings, load_task

Write = Callable[..., Path]
Load = Callable[..., Task]
Worth = Callable[..., float]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write items as JSONL (or a text, or bytes, as they are) into the job's folder."""

    def write(name: str, content: Iterable[Mapping[str, Any]] | str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            content = content.encode()
        elif not isinstance(content, bytes):
            content = "".join(json.dumps(fields) + "\n" for fields in content).encode()
        path.write_bytes(content)
        return path

    return write


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load a task of the job's folder from its settings as they would stand in a job."""

    def load(seed: int = 0, default_sizes: SplitSizes | None = None, **settings: Any) -> Task:
        defaults = {"name": "sums", "data": "data.jsonl", "prompt": "{{question}}", "score": "exact"}
        parsed = TaskSettings.model_validate_json(json.dumps(defaults | settings), strict=True)
        return load_task(parsed, tmp_path, seed, default_sizes)

    return load


@pytest.fixture
def worth(tmp_path: Path) -> Worth:
    """Score one answer (a text, or log-probabilities with numbers of tokens) by a scorer as it is written in a job."""

    def worth(
        spec: Any, given: str | list[tuple[float, int]], *references: str, choices: Iterable[str] = (), **fields: Any
    ) -> float:
        item = Item(id="0" * 16, line=3, fields=fields or {"question": "?"}, file="data.jsonl")
        question = Question(item, "?", references, tuple(choices))
        scorer = ScorerSettings.model_validate(spec).make(tmp_path)
        if isinstance(given, str):
            return scorer.score(question, Answer(text=given))
        return scorer.score(question, Answer(likelihoods=tuple(Likelihood(*pair) for pair in given)))

    return worth
