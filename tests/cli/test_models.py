"""merge, eval and export, as one uses them."""

import shutil
from contextlib import closing
from pathlib import Path

import pytest
import torch
import yaml
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from evomerge.study.journal import Journal
from tests.cli.conftest import Command

RECIPE = """\
method: task_arithmetic
base: models/base
models:
  - {model: models/one, weight: 0.5}
  - {model: models/two, weight: -0.25}
"""


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(next(folder.glob("*.safetensors")))


def same(first: Path, second: Path) -> bool:
    ours, theirs = tensors(first), tensors(second)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_merge_writes_the_sum_that_the_recipe_says(place: Path, command: Command) -> None:
    Path("recipe.yaml").write_text(RECIPE)
    done = command("merge", "recipe.yaml", "out")
    assert (done.code, done.out, done.err) == (0, "merged into out\n", "")
    base, one, two = (tensors(place / "models" / name) for name in ("base", "one", "two"))
    for name, merged in tensors(place / "out").items():
        b, x, y = (model[name].double() for model in (base, one, two))
        torch.testing.assert_close(merged.double(), b + 0.5 * (x - b) - 0.25 * (y - b), rtol=2**-8, atol=1e-6)
    assert AutoModelForCausalLM.from_pretrained("out").num_parameters() > 0


def test_merge_of_adapters_loads_on_their_base(place: Path, command: Command) -> None:
    Path("recipe.yaml").write_text(
        RECIPE.replace("models/one", "adapters/short").replace("models/two", "adapters/long")
    )
    assert command("merge", "recipe.yaml", "out").code == 0
    base = AutoModelForCausalLM.from_pretrained("models/base", dtype=torch.float32)
    config = PeftModel.from_pretrained(base, "out").peft_config["default"]
    assert isinstance(config, LoraConfig)
    assert config.r == 3


@pytest.mark.parametrize("words", [[], ["--trial", "2"]])
def test_an_exports_recipe_makes_the_same_model_again(
    words: list[str], study: Path, finished: Path, command: Command
) -> None:
    out = finished / "exports" / "-".join(["deep", *words])
    done = command("export", study, out, *words)
    assert (done.code, done.out) == (0, f"exported into {out}\n")
    if not words:
        assert same(out, study / "merged")
    again = finished / "exports" / "-".join(["again", *words])
    assert command("merge", out / "recipe.yaml", again).code == 0
    assert same(again, out)


def test_an_exports_recipe_is_found_its_models_by_the_folders_above_it_alone(
    study: Path, finished: Path, tmp_path: Path, command: Command
) -> None:
    out = tmp_path / "far" / "away"
    assert command("export", study, out).code == 0
    done = command("merge", out / "recipe.yaml", tmp_path / "again")
    assert (done.code, done.out) == (78, "")
    assert f"{out}/models/" in done.err
    shutil.copytree(finished / "models", tmp_path / "models")
    assert command("merge", out / "recipe.yaml", tmp_path / "again").code == 0


def test_an_exports_recipe_passes_by_a_folder_that_holds_only_some_of_its_models(
    study: Path, finished: Path, tmp_path: Path, command: Command
) -> None:
    out = tmp_path / "near" / "out"
    assert command("export", study, out).code == 0
    shutil.copytree(finished / "models" / "two", tmp_path / "near" / "models" / "one")
    shutil.copytree(finished / "models", tmp_path / "models")
    assert command("merge", out / "recipe.yaml", tmp_path / "again").code == 0
    assert same(tmp_path / "again", out)


def test_a_recipe_whose_models_are_in_no_one_folder_is_refused(
    study: Path, finished: Path, tmp_path: Path, command: Command
) -> None:
    out = tmp_path / "near" / "out"
    assert command("export", study, out).code == 0
    shutil.copytree(finished / "models" / "one", tmp_path / "near" / "models" / "one")
    shutil.copytree(finished / "models" / "base", tmp_path / "models" / "base")
    shutil.copytree(finished / "models" / "two", tmp_path / "models" / "two")
    done = command("merge", out / "recipe.yaml", tmp_path / "again")
    assert (done.code, done.out) == (78, "")
    assert "its models are not all found from one folder" in done.err
    assert f"models/one is in {tmp_path / 'near'}, and models/" in done.err
    assert not (tmp_path / "again").exists()


def test_a_pack_of_a_merge_becomes_a_model_again_without_the_models_it_was_merged_from(
    place: Path, command: Command
) -> None:
    Path("recipe.yaml").write_text(
        "method: emr\nbase: models/base\nmodels: [{model: models/one}, {model: models/two}]\npacks: true\n"
    )
    done = command("merge", "recipe.yaml", "out")
    assert (done.code, done.err) == (0, "")
    assert done.out == "merged into out\nwith packs of one, two; evomerge unpack out one DEST\n"
    shutil.rmtree(place / "models" / "one")
    assert command("unpack", "out", "one", "again").out == "unpacked into again\n"
    assert tensors(place / "again").keys() == tensors(place / "out").keys()
    assert AutoModelForCausalLM.from_pretrained("again").num_parameters() > 0
    for folder, sentence in (("models/base", "recipe.yaml"), ("out", "there are one, two")):
        done = command("unpack", folder, "none", "more")
        assert (done.code, done.out) == (78, "")
        assert sentence in done.err


def test_an_export_that_is_extracted_tells_what_it_lacks(place: Path, command: Command) -> None:
    job = Path("job.yaml")
    job.write_text(job.read_text().replace("tasks:\n", "  refactor: {rank: 2}\ntasks:\n", 1))
    assert command("run", "job.yaml").code == 0
    done = command("export", "studies/job", "out", "--trial", "1")
    assert done.code == 0
    told = done.out.splitlines()
    assert told[0] == "exported into out"
    assert told[1].startswith("Rank 2 leaves out ")
    assert told[1] in (place / "out" / "README.md").read_text()


def test_an_exported_trial_has_the_weights_that_the_journal_has(study: Path, tmp_path: Path, command: Command) -> None:
    assert command("export", study, tmp_path / "out", "--trial", 2).code == 0
    written = yaml.safe_load((tmp_path / "out" / "recipe.yaml").read_text())["recipe"]
    with closing(Journal(study / "journal.db", read_only=True)) as journal:
        [vector] = [event.data["vector"] for event in journal.events() if (event.kind, event.trial) == ("ask", 2)]
    assert [model["weight"] for model in written["models"]] == pytest.approx(vector, rel=1e-8)
    assert "Trial 2 of the study job." in (tmp_path / "out" / "README.md").read_text()


def test_a_trial_that_was_not_is_refused_with_those_that_were(study: Path, tmp_path: Path, command: Command) -> None:
    done = command("export", study, tmp_path / "out", "--trial", 3)
    assert (done.code, done.err) == (78, f"evomerge: {study}: there is no trial 3; it has trials 0 to 2\n")
    assert not (tmp_path / "out").exists()


def test_a_study_without_a_winner_says_so(study: Path, tmp_path: Path, command: Command) -> None:
    with closing(Journal(study / "journal.db")) as journal:
        journal._db.execute("DELETE FROM events WHERE kind = 'decision'")
    done = command("export", study, tmp_path / "out")
    assert done.code == 78
    assert "this study has no winner yet; go on with `evomerge run`, or name a --trial" in done.err


def test_a_study_whose_job_is_gone_or_changed_cannot_be_exported(study: Path, tmp_path: Path, command: Command) -> None:
    job = tmp_path / "other.yaml"
    with closing(Journal(study / "journal.db")) as journal:
        journal.set_fact("job", str(job))
    gone = command("export", study, tmp_path / "out")
    assert gone.code == 78
    assert f"its job file {job} is gone" in gone.err
    shutil.copytree("models", tmp_path / "models")
    shutil.copyfile("items.jsonl", tmp_path / "items.jsonl")
    job.write_text(Path("job.yaml").read_text().replace("{low: 0, high: 1}", "{low: 0, high: 2}", 1))
    changed = command("export", study, tmp_path / "out")
    assert changed.code == 78
    assert "recipe changed since this study was started" in changed.err
    assert not (tmp_path / "out").exists()


def test_eval_scores_folders_adapters_and_recipes_side_by_side(place: Path, command: Command) -> None:
    Path("recipe.yaml").write_text(RECIPE)
    names = ["models/base", "adapters/short", "recipe.yaml"]
    done = command("eval", "job.yaml", *names, "--split", "select")
    assert (done.code, done.err) == (0, "")
    lines = [[cell.strip() for cell in line.replace("┃", "│").split("│")] for line in done.out.splitlines()]
    assert lines[0] == ["model", "score", "95 % interval", "difference to models/base", "sums", "words"]
    assert [line[0] for line in lines[2:]] == names
    assert lines[2][3] == "-"
    assert all("to" in line[3] for line in lines[3:])


def test_eval_of_one_model_compares_it_with_nothing(place: Path, command: Command) -> None:
    done = command("eval", "job.yaml", "models/one")
    assert done.code == 0
    assert "difference" not in done.out


def test_eval_finds_the_models_of_an_exports_recipe(study: Path, command: Command) -> None:
    done = command("eval", "job.yaml", "studies/job/merged", "studies/job/merged/recipe.yaml")
    assert (done.code, done.err) == (0, "")
    assert "+0.000" in done.out.splitlines()[-1]
