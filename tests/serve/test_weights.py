"""A model of weights is served with the answers that it gives to a study, many clients in one batch."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.served import served

TINY = Path(__file__).parents[2] / "zoo" / "tiny"

pytestmark = pytest.mark.slow


def test_a_checkpoint_answers_text_and_chats_to_many_clients() -> None:
    letters = ["dbac", "hello", "zyx", "cab", "wvut", "qrs", "mlk", "ponm"]
    with served(TINY / "experts" / "sort") as server:
        assert "a checkpoint of 0.9M parameters" in server.said

        def text(word: str) -> str:
            body = {"model": "sort", "prompt": f"sort:{word}=", "max_tokens": 10, "temperature": 0}
            return server.ask("POST", "/v1/completions", body).json["choices"][0]["text"]

        def chat(word: str) -> str:
            got = server.chat(f"sort:{word}=", model="sort", max_tokens=10)
            return got.json["choices"][0]["message"]["content"]

        with ThreadPoolExecutor(8) as pool:
            texts, chats = list(pool.map(text, letters)), list(pool.map(chat, letters))
        assert texts == chats
        assert sum(found == "".join(sorted(word)) for found, word in zip(texts, letters, strict=True)) >= 6
        assert server.counted("evomerge_tokens_total")['member="sort",kind="completion"'] > 2 * len(letters)
        long = server.chat("x" * 4000, model="sort")
        assert (long.status, long.code) == (400, "invalid_value")
        assert "positions" in long.json["error"]["message"]


def test_a_merge_is_served_without_being_written(tmp_path: Path) -> None:
    recipe = tmp_path / "both.yaml"
    recipe.write_text(
        f"method: linear\nmodels:\n  - {{model: {TINY}/experts/sort, weight: 0.5}}\n"
        f"  - {{model: {TINY}/experts/shift, weight: 0.5}}\n"
    )
    with served(recipe) as server:
        got = server.chat("sort:cba=", model="both", max_tokens=8)
        assert (got.status, got.json["usage"]["prompt_tokens"] > 5) == (200, True)
    assert list(tmp_path.iterdir()) == [recipe]
