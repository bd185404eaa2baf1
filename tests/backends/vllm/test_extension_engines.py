"""A swap equals a fresh start: engines of vLLM that are given a recipe, beside engines started on its export."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from evomerge.backends.vllm.wire import to_wire
from evomerge.backends.weights.export import export
from evomerge.backends.weights.store import WeightStore
from evomerge.recipe.tree import Input, Merge, Source, WeightRecipe, recipe_id
from evomerge.study.own_methods import import_methods
from tests.support.models import save_model
from tests.support.require import require

pytestmark = pytest.mark.slow

ZOO = Path(__file__).parents[3] / "zoo" / "tiny"
SHORT = ["reverse:abcd=", "sort:dcba=", "add:12+30="]
LONG = "a long prompt that fills many blocks of the prefix cache; " * 5
OWN = """
from evomerge import Needs, method

@method("test_middle", title="Middle", needs=Needs("unused", (1, None)), parameters=(), source="a test", evidence="R")
def middle(ctx, base, inputs, params):
    import torch
    return torch.stack(inputs).mean(0)
"""
LORA = {"enable_lora": True, "max_loras": 1, "max_lora_rank": 16}


def swapped(recipe: WeightRecipe) -> list[dict[str, Any]]:
    argument = {"recipe": to_wire(recipe), "id": recipe_id(recipe)}
    return [{"call": "evomerge_hold", "argument": argument}, {"forget": True}]


def engine(model: Path, *steps: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    return {"model": str(model), "steps": steps, "options": options}


def run(python: Path, engines: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [str(python), str(Path(__file__).with_name("engines.py"))]
    ran = subprocess.run(
        command, input=json.dumps(engines), env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    return json.loads(ran.stdout)


class Answers:
    """What all engines answered, which are run once: an engine takes seconds, and their process half a minute."""

    def __init__(self, python: Path, folder: Path) -> None:
        store = WeightStore()
        shape: dict[str, Any] = {"hidden_size": 128, "max_position_embeddings": 512, "tie_word_embeddings": True}
        tied = [save_model(folder / f"tied-{seed}", seed, **shape) for seed in range(3)]
        (folder / "vllm_test_methods.py").write_text(OWN)

        def merge(method: str, models: Sequence[Path], base: Path | None, **params: float) -> Merge:
            inputs = tuple(Input(Source(str(model)), {"weight": 0.6, **params}) for model in models)
            recipe = Merge(method, inputs if ":" not in method else tuple(Input(item.recipe) for item in inputs),
                           base=None if base is None else Source(str(base)))  # fmt: skip
            import_methods(recipe, folder)
            found = store.resolve(recipe, folder)
            assert isinstance(found, Merge)
            return found

        def exported(recipe: WeightRecipe, name: str) -> Path:
            export(store, recipe, folder / name)
            return folder / name

        experts = [ZOO / "experts" / name for name in ("reverse", "sort")]
        ties = merge("ties", experts, ZOO / "base", density=0.5)
        own = merge("vllm_test_methods:middle", experts, None)
        adapters = merge("task_arithmetic", [ZOO / "adapters" / name for name in ("reverse", "sort")], ZOO / "base")
        embeddings = merge("task_arithmetic", tied[1:], tied[0])
        ask, long = {"ask": SHORT}, {"ask": [*SHORT, LONG]}
        with_adapter = {"ask": SHORT, "adapter": str(ZOO / "adapters" / "sort")}
        whole = {"recipe": to_wire(ties), "experts": "auto"}
        results = run(
            python,
            [
                engine(ZOO / "base", {"call": "evomerge_open", "argument": whole}, ask, *swapped(ties), ask,
                       *swapped(own), ask, *swapped(adapters), ask, *swapped(ties), ask),
                engine(ZOO / "base", with_adapter, *swapped(ties), ask, with_adapter, **LORA),
                engine(exported(ties, "ties"), with_adapter, ask, **LORA),
                engine(exported(own, "own"), ask),
                engine(tied[0], long, *swapped(embeddings), long),
                engine(exported(embeddings, "embeddings"), long),
            ],
        )  # fmt: skip
        self.plain, self.lora, self.fresh_lora, self.fresh_own, self.tied, self.fresh_tied = results


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    return Answers(require("vllm"), tmp_path_factory.mktemp("engines"))


def test_models_are_opened_and_the_plan_has_their_sizes(answers: Answers) -> None:
    opened = answers.plain[0]
    assert opened["plan"]["place"] == "files"
    assert {Path(name).name for name in opened["plan"]["models"]} == {"base", "reverse", "sort"}
    assert all(size == 1_757_440 for size in opened["plan"]["models"].values())


def test_a_swap_equals_a_fresh_start_on_the_exported_checkpoint(answers: Answers) -> None:
    before, held, _, after = answers.plain[1:5]
    assert held["ok"] is True
    assert set(held["seconds"]) == {"open", "check", "merge", "load"}
    assert after == answers.fresh_lora[1]
    assert after != before


def test_a_recipe_with_a_method_of_ones_own_is_swapped_in(answers: Answers) -> None:
    assert answers.plain[5]["ok"] is True
    assert answers.plain[7] == answers.fresh_own[0]


def test_a_merge_of_adapters_is_swapped_in_as_a_whole_model(answers: Answers) -> None:
    assert answers.plain[8]["ok"] is True
    assert answers.plain[10] not in (answers.plain[1], answers.plain[7])


def test_what_was_held_between_leaves_no_trace(answers: Answers) -> None:
    assert answers.plain[13] == answers.plain[4]


def test_an_engine_with_adapters_enabled_takes_swaps(answers: Answers) -> None:
    before, held, _, base, adapted = answers.lora
    assert held["ok"] is True
    assert base == answers.fresh_lora[1]
    assert adapted == answers.fresh_lora[0]
    assert adapted != before


def test_tied_and_changed_embeddings_answer_as_after_a_fresh_start(answers: Answers) -> None:
    before, held, _, after = answers.tied
    assert held["ok"] is True
    assert after == answers.fresh_tied[0]
    assert after != before
