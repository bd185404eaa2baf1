"""lm-evaluation-harness asks a served ensemble through its model `local-chat-completions`, as it asks any other API."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.serve.conftest import KEY
from tests.support.endpoint import ChatServer
from tests.support.ensemble import adder, write_items
from tests.support.require import require
from tests.support.served import served, write_recipe

pytestmark = pytest.mark.slow

ITEMS = 24
TASK = """\
task: sums
dataset_path: json
dataset_kwargs: {{data_files: {{test: '{items}'}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["\\n"], do_sample: false, temperature: 0, max_gen_toks: 16}}
filter_list:
  - {{name: number, filter: [{{function: regex, regex_pattern: "(-?[0-9]+)"}}, {{function: take_first}}]}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 1}}
"""


def test_lm_evaluation_harness_scores_a_served_ensemble(tmp_path: Path) -> None:
    python = require("lm-eval")
    items = write_items(tmp_path, ITEMS)
    (tmp_path / "sums.yaml").write_text(TASK.format(items=items))
    running = {name: ChatServer(adder(name, 0.35)) for name in ("red", "green", "blue")}
    folder = tmp_path / "ensemble"
    write_recipe(folder, running)
    try:
        with served(folder, "--api-key-env", "CLIENTS", CLIENTS=KEY) as server:
            expected = sum(
                str(item["answer"]) in asked.split()[-1]
                for item in map(json.loads, items.read_text().splitlines())
                if (asked := answer(server.url, item["question"]))
            )
            words = [
                python.parent / "lm_eval", "--model", "local-chat-completions", "--tasks", "sums",
                "--apply_chat_template",
                "--include_path", tmp_path, "--output_path", tmp_path / "out", "--model_args",
                f"model=ensemble,base_url={server.url}/chat/completions,num_concurrent=4,max_retries=1",
            ]  # fmt: skip
            done = subprocess.run(
                list(map(str, words)), capture_output=True, text=True, check=False, cwd=tmp_path,
                env=os.environ | {
                    "OPENAI_API_KEY": KEY, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1",
                    "HF_DATASETS_OFFLINE": "1",
                },
            )  # fmt: skip
    finally:
        for one in running.values():
            one.close()
    assert done.returncode == 0, done.stderr
    (results,) = (tmp_path / "out").rglob("results_*.json")
    found = json.loads(results.read_text())["results"]["sums"]["exact_match,number"]
    assert found == pytest.approx(expected / ITEMS)
    assert 0.5 < found < 1


def answer(url: str, question: str) -> str:
    import openai

    with openai.OpenAI(base_url=url, api_key=KEY, max_retries=0) as client:
        found = client.chat.completions.create(model="ensemble", messages=[{"role": "user", "content": question}])
        return (found.choices[0].message.content or "").rstrip(".")
