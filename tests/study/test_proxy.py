"""Searching whole models by adapters: which recipes can be, that no score of one is taken for the other, that all is told.

The backend here is the embedded one, which holds a proxy as it holds any recipe; vLLM's own is in tests/integration.
"""

import asyncio
import json
import shutil
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from evomerge.backends.local import LocalBackend
from evomerge.backends.settings import LocalSettings
from evomerge.backends.weights.adapter_folder import write_adapter
from evomerge.backends.weights.artifact import LowRank
from evomerge.errors import ConfigError, StudyChanged
from evomerge.recipe.tree import Merge, Source, as_weights, recipe_id
from evomerge.report.write import write_report
from evomerge.study.job import load_job
from evomerge.study.journal import Journal
from evomerge.study.limits import Stop
from evomerge.study.loop import Trial
from evomerge.study.plan import plan
from evomerge.study.prepare import Prepared, prepare
from evomerge.study.proxy import COMPARED
from evomerge.study.result import Outcome
from evomerge.study.status import read_status
from evomerge.study.study import Stopped, Study, StudyObserver
from tests.support.commands import JOB, call, write_family
from tests.support.models import CHARACTERS

BACKEND = "backend: {kind: vllm, proxy: {rank: 4}}\n"
MODELS = """\
    - {model: models/one, weight: {low: 0, high: 1}}
    - {model: models/two, weight: {low: 0, high: 1}}
"""


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return write_family(tmp_path_factory.mktemp("family"))


def prepared(family: Path, *, changes: Sequence[tuple[str, str]] = (), backend: str = BACKEND) -> Prepared:
    text = JOB + backend
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = family / "proxied.yaml"
    path.write_text(text, encoding="utf-8")
    return prepare(load_job(path))


class Heard(StudyObserver):
    """Keeps what was said; presses `stop` when so many trials were told."""

    def __init__(self, stop: Stop | None = None, after: int = 0) -> None:
        self.words: list[str] = []
        self.phases: list[str] = []
        self._stop, self._after = stop, after

    def said(self, words: str) -> None:
        self.words.append(words)

    def phase(self, name: str, items: int) -> None:
        self.phases.append(name)

    def told(self, trial: Trial, *, replayed: bool) -> None:  # pyright: ignore[reportMissingTypeArgument, reportUnknownParameterType]
        self._after -= 1
        if self._stop is not None and not self._after:
            self._stop.request("enough")


def run(ready: Prepared, folder: Path, heard: Heard | None = None, stop: Stop | None = None) -> Outcome:
    backend = LocalBackend(LocalSettings(device="cpu", threads=1), ready.store)
    return asyncio.run(Study(ready, folder, backend, heard or Heard(), stop or Stop()).run())


def scored(folder: Path) -> dict[str, set[str]]:
    """Return the ids under which there are scores, by split."""
    found: dict[str, set[str]] = {}
    with closing(Journal(folder / "journal.db", read_only=True)) as journal:
        for recipe, split in journal._db.execute("SELECT DISTINCT recipe, split FROM scores"):
            found.setdefault(split, set()).add(recipe)
    return found


def test_proxies_and_exact_recipes_have_scores_of_their_own(family: Path, tmp_path: Path) -> None:
    ready = prepared(family, changes=[("trials: 3", "trials: 30")])
    heard = Heard()
    outcome = run(ready, tmp_path / "study", heard)
    ids = scored(tmp_path / "study")
    with closing(Journal(tmp_path / "study" / "journal.db", read_only=True)) as journal:
        vectors = [event.data["vector"] for event in journal.events() if event.kind == "ask"]
        exact = {recipe_id(ready.space.decode(vector)) for vector in vectors}
        assert journal.fact("proxy").keys() == {"one", "two"}
    baselines = {recipe_id(one.recipe) for one in ready.baselines}
    both = ids["search"] & exact
    assert len(both) == COMPARED + 2
    assert len(ids["search"] - exact - baselines) == 30
    assert ids["select"] <= exact | baselines
    assert ids["test"] <= exact | baselines
    agreement = outcome.agreement
    assert agreement is not None
    assert len(agreement.pairs) == COMPARED + 2
    assert [pair.finalist for pair in agreement.pairs].count(True) == 2
    assert all(outcome.searched[pair.trial] == pair.proxy for pair in agreement.pairs)
    assert outcome.winner.recipe_id in exact | baselines
    assert not (outcome.merged / "adapter_config.json").exists()
    assert [words for words in heard.words if "as an adapter of rank 4 lacks" in words]
    assert heard.phases == ["baselines", "search", "proxy", "selection", "test", "export"]


def test_a_proxy_that_lacks_nothing_agrees_with_what_it_stands_for(family: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        shutil.copytree(family / "models" / "base", tmp_path / "models" / name)
        tensors = load_file(family / "models" / "base" / "model.safetensors")
        tuned = load_file(family / "models" / name / "model.safetensors")
        save_file(
            {key: tuned[key] if key.endswith("_proj.weight") else tensor for key, tensor in tensors.items()},
            tmp_path / "models" / name / "model.safetensors",
            {"format": "pt"},
        )
    shutil.copytree(family / "models" / "base", tmp_path / "models" / "base")
    shutil.copy(family / "items.jsonl", tmp_path)
    ready = prepared(tmp_path, changes=[("trials: 3", "trials: 20"), ("rank: 4", "rank: 32")])
    outcome = run(ready, tmp_path / "study")
    agreement = outcome.agreement
    assert agreement is not None
    assert max(agreement.lacks.values()) < 0.01
    for pair in agreement.pairs:
        assert pair.proxy == pytest.approx(pair.exact, abs=0.2)
    assert agreement.overall is not None
    assert agreement.overall.value > 0.9


def test_what_agreed_is_told_everywhere(
    family: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ready = prepared(family, changes=[("trials: 3", "trials: 12")])
    folder = tmp_path / "study"
    outcome = run(ready, folder)
    assert outcome.agreement is not None
    sentence = outcome.agreement.sentence
    assert "adapters of rank 4" in sentence
    assert "10 pairs" in sentence
    write_report(outcome, folder)
    result = json.loads((folder / "result.json").read_text())
    assert len(result["proxy"]["pairs"]) == 10
    assert result["proxy"]["spearman"]["pairs"] == 10
    assert "by proxy of rank 4" in (folder / "convergence.svg").read_text()
    assert read_status(folder).proxy == sentence
    assert sentence in call(capsys, "status", str(folder)).out


def test_adapters_are_extracted_once_and_a_stopped_study_ends_as_another(family: Path, tmp_path: Path) -> None:
    ready = prepared(family, changes=[("trials: 3", "trials: 8")])
    whole = run(ready, tmp_path / "whole")
    stop = Stop()
    first, second = Heard(stop, after=5), Heard()
    with pytest.raises(Stopped):
        run(prepared(family, changes=[("trials: 3", "trials: 8")]), tmp_path / "study", first, stop)
    assert "none is scored exactly yet" in str(read_status(tmp_path / "study").proxy)
    again = run(prepared(family, changes=[("trials: 3", "trials: 8")]), tmp_path / "study", second)
    assert [words for words in first.words if words.startswith("extracting")]
    assert not [words for words in second.words if words.startswith("extracting")]
    assert again.searched == whole.searched
    assert again.rows == whole.rows
    assert again.agreement == whole.agreement
    shutil.rmtree(tmp_path / "study" / "proxy")
    third = Heard()
    assert run(prepared(family, changes=[("trials: 3", "trials: 8")]), tmp_path / "study", third).rows == whole.rows
    assert not third.words
    with pytest.raises(StudyChanged, match="proxy changed since"):
        run(prepared(family, changes=[("trials: 3", "trials: 8"), ("rank: 4", "rank: 5")]), tmp_path / "study")


GROUPED = "scale: {low: 0.5, high: 1}\n  per: {layers: 2, groups: [attention, embeddings, rest]}\n  models:"


@pytest.mark.parametrize(
    "changes",
    [
        [],
        [("method: task_arithmetic", "method: linear")],
        [("method: task_arithmetic", "method: {choices: [task_arithmetic, linear]}")],
        [("models:", GROUPED)],
        [("models:", "per: tensor\n  models:")],
        [("{low: 0, high: 1}", "[{low: 0, high: 1}, {low: 0, high: 1}]")],
        [("method: task_arithmetic", "method: layer_swap\n  bottom: {low: 0, high: 2}"), (", weight: {low: 0, high: 1}", "")],
        [("model: models/two", "model: {method: ties, base: models/base, models: [{model: models/one}, {model: models/two}]}")],
        [("model: models/two", "model: {method: linear, base: models/base, models: [{model: models/one, weight: {low: 1, high: 2}}, {model: models/two}]}")],
        [("model: models/two", "model: adapters/short")],
        [("base: models/base", "base: models/base\n  dtype: float32")],
    ],
)  # fmt: skip
def test_weighted_sums_of_all_forms_have_proxies(changes: list[tuple[str, str]], family: Path, tmp_path: Path) -> None:
    ready = prepared(family, changes=changes)
    assert ready.proxy is not None
    adapters = ready.proxy.adapters(ready.store, tmp_path)
    made = {name: adapters.extract(model) for name, model in ready.proxy.models.items()}
    for at in (0.2, 0.9):
        recipe = as_weights(ready.space.decode((at,) * len(ready.space)))
        proxied = ready.proxy.made(recipe, made)
        exact, low = dict(ready.store.tensors(recipe)), ready.store.low_rank(proxied)
        base = dict(ready.store.tensors(ready.proxy.base))
        assert "lm_head" not in low
        lacking = 0.0
        for module, factors in low.items():
            change = exact[f"{module}.weight"].float() - base[f"{module}.weight"].float()
            lacking = max(lacking, float((change - factors.b @ factors.a).norm() / change.norm().clamp(min=0.1)))
        assert lacking < 0.97


def test_a_proxy_of_full_rank_is_the_recipe_where_the_layers_are_linear(family: Path, tmp_path: Path) -> None:
    grouped = ("models:", "per: [attention, mlp, norms, rest]\n  models:")
    ready = prepared(family, changes=[("rank: 4", "rank: 32"), grouped])
    assert ready.proxy is not None
    adapters = ready.proxy.adapters(ready.store, tmp_path)
    made = {name: adapters.extract(model) for name, model in ready.proxy.models.items()}
    recipe = as_weights(ready.space.decode([place / len(ready.space) for place in range(len(ready.space))]))
    exact = dict(ready.store.tensors(recipe))
    for name, tensor in ready.store.tensors(ready.proxy.made(recipe, made)):
        if name.endswith("_proj.weight"):
            torch.testing.assert_close(tensor.float(), exact[name].float(), rtol=0.01, atol=0.01)


@pytest.mark.parametrize(
    ("changes", "because"),
    [
        ([("method: task_arithmetic", "method: ties")], "ties is no weighted sum of models.*use one of .*linear"),
        ([("method: task_arithmetic", "method: {choices: [linear, dare_ties]}")], "dare_ties is no weighted sum"),
        ([("method: task_arithmetic\n  base: models/base", "method: linear")], "only a merge with a model as its base"),
        ([("method: task_arithmetic", "method: linear\n  normalize: false")], "do not always leave the base whole"),
        ([(MODELS, MODELS.replace("models/one", "adapters/short").replace("models/two", "adapters/long"))], "is an adapter itself"),
        ([("method: task_arithmetic", "method: task_arithmetic\n  refactor: 4")], "is an adapter itself"),
        ([("rank: 4", "rank: 400")], "800 wide, and vLLM takes 512 at most; write proxy: {rank: 256} or less"),
        ([("model: models/two", "model: {method: linear, models: [{model: models/one, weight: {low: 1, high: 2}}]}")], "has another base"),
        ([("model: models/two", "model: adapters/head")], "changes the output head"),
        ([("rank: 4", "rank: 0")], "greater than or equal to 1"),
    ],
)  # fmt: skip
def test_what_has_no_proxy_is_refused_in_a_sentence(
    changes: list[tuple[str, str]], because: str, family: Path
) -> None:
    if not (family / "adapters" / "head").exists():
        head = LowRank(a=torch.ones(2, 32), b=torch.ones(len(CHARACTERS), 2))
        (family / "adapters" / "head").mkdir()
        write_adapter(family / "adapters" / "head", {"lm_head": head}, Source("models/base"), ["lm_head"])
    with pytest.raises(ConfigError, match=because) as refused:
        prepared(family, changes=changes)
    assert "proxy" in str(refused.value)


def test_the_embedded_backend_has_none(family: Path) -> None:
    assert prepared(family, backend="").proxy is None
    with pytest.raises(ConfigError, match="proxy"):
        prepared(family, backend="backend: {kind: local, proxy: {rank: 4}}\n")


def test_check_says_what_is_asked_and_what_adapters_lack_once_that_is_known(
    family: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ready = prepared(family)
    job, folder = str(family / "proxied.yaml"), tmp_path / "study"
    unknown = call(capsys, "check", job, "--study", str(folder))
    assert unknown.code == 0, unknown.err
    assert "trials are scored as sums of 2 adapters of rank 4, on the linear layers (" in unknown.out
    assert "an adapter of rank 8, not merged, beside its base in a vLLM server" in unknown.out
    assert "what the adapters lack is known once they are extracted" in unknown.out
    run(ready, folder)
    known = call(capsys, "check", job, "--study", str(folder))
    assert "one as an adapter of rank 4 lacks " in known.out
    assert "what the adapters lack is known" not in known.out
    backend = LocalBackend(LocalSettings(device="cpu", threads=1), ready.store)
    searched = plan(ready, backend).shares[0]
    assert searched.models == len(ready.baselines) + 3 + COMPARED + 2
    assert call(capsys, "clean", str(folder)).code == 0
    assert not (folder / "proxy").exists()


def test_outlined_and_made_differ_only_in_how_adapters_are_written(family: Path) -> None:
    ready = prepared(family)
    assert ready.proxy is not None
    outlined = ready.proxy.outlined(ready.space.decode(ready.space.start))
    assert isinstance(outlined, Merge)
    assert [isinstance(item.recipe, Merge) and item.recipe.refactor for item in outlined.inputs] == [4, 4]
