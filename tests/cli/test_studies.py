"""run, check, status and clean, as one uses them."""

import json
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from evomerge.backends.weights import agreement
from evomerge.backends.weights.models import Models
from evomerge.recipe.tree import Recipe
from evomerge.study.journal import Journal
from tests.cli.conftest import Command
from tests.support.commands import JOB, everything_in


def test_a_finished_study_shows_its_table_its_files_and_the_next_command(finished: Path, command: Command) -> None:
    os.chdir(finished)
    done = command("run", "job.yaml")
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0] == "job: test scores"
    header = [cell.strip() for cell in lines[1].split("┃")]
    assert header[:3] == ["model", "score", "95 % interval"]
    assert header[-2:] == ["sums", "words"]
    names = [line.split("│")[0].strip() for line in lines if "│" in line]
    assert {"base", "one", "two"} <= set(names)
    assert names[-1].endswith("(winner)")
    assert "Merged model:  studies/job/merged" in lines
    assert "Next:          evomerge eval job.yaml studies/job/merged" in lines


def test_a_studys_weights_are_read_once(place: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Recipe] = []
    monkeypatch.setattr(agreement, "check_values", lambda _, recipe: read.append(recipe))
    assert command("run", "job.yaml").code == 0
    assert len(read) == 1
    more = JOB.replace("trials: 3", "trials: 5")
    Path("job.yaml").write_text(more)
    assert command("run", "job.yaml").code == 0
    assert len(read) == 1


def test_the_name_in_the_job_is_that_of_the_folder(place: Path, command: Command) -> None:
    Path("job.yaml").write_text(JOB.replace("trials: 3", "trials: 1") + "name: mine\n")
    assert command("run", "job.yaml").code == 0
    assert command("status", "studies/mine").code == 0


def test_status_tells_what_is_done(study: Path, command: Command) -> None:
    done = command("status", study)
    assert (done.code, done.err) == (0, "")
    words = {line.split()[0]: line.split(maxsplit=1)[1] for line in done.out.splitlines()}
    assert words["study"] == str(study)
    assert words["phase"] == "finished (the search ended by trials)"
    assert words["trials"] == "3, of which 0 failed"
    assert set(words) == {"study", "phase", "trials", "best", "items", "winner"}


def test_status_as_json_is_json_with_the_same_facts(study: Path, command: Command) -> None:
    done = command("status", study, "--json")
    told = json.loads(done.out)
    assert (told["phase"], told["trials"], told["failed"], told["ended_by"]) == ("finished", 3, 0, "trials")
    with closing(Journal(study / "journal.db", read_only=True)) as journal:
        values = {event.trial: event.data["fitness"] for event in journal.events() if event.kind == "tell"}
        winner = next(event.data["winner"] for event in journal.events() if "winner" in event.data)
        assert told["items"] == journal.count_scores()
    assert told["best"] == max(values.values()) == values[told["best_trial"]]
    assert told["winner"] == winner["name"]
    assert told["versions"]["evomerge"]


@pytest.mark.parametrize(
    ("events", "phase"),
    [
        ([], "search"),
        ([("ask", 0, {}), ("tell", 0, {"error": "no"})], "search"),
        ([("decision", None, {"search_ended": "trials"})], "selection"),
        ([("decision", None, {"search_ended": "hours"}), ("decision", None, {"winner": {"name": "x"}})], "test"),
        ([("decision", None, {"search_ended": "hours"}), ("ask", 1, {})], "search"),
        ([("decision", None, {"finished": True}), ("ask", 1, {})], "search"),
    ],
)
def test_status_knows_every_phase(
    events: list[tuple[str, int | None, dict[str, object]]], phase: str, tmp_path: Path, command: Command
) -> None:
    with closing(Journal(tmp_path / "journal.db")) as journal:
        for event in events:
            journal.append(*event)
    assert json.loads(command("status", tmp_path, "--json").out)["phase"] == phase
    assert f"phase    {phase}" in command("status", tmp_path).out


def test_a_study_that_is_worked_on_shows_its_status_and_refuses_everybody_else(place: Path, command: Command) -> None:
    Path("job.yaml").write_text(JOB.replace("trials: 3", "trials: 100000"))
    process = subprocess.Popen(
        [sys.executable, "-m", "evomerge", "run", "job.yaml", "--study", "my study"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stderr is not None
    while (line := process.stderr.readline()) and not line.startswith("trial"):
        pass
    os.kill(process.pid, signal.SIGSTOP)
    try:
        told = json.loads(command("status", "my study", "--json").out)
        before = everything_in(place)
        refused = [command("run", "job.yaml", "--study", "my study"), command("clean", "my study", "--all")]
        after = everything_in(place)
    finally:
        os.kill(process.pid, signal.SIGCONT)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert told["phase"] == "search"
    assert told["trials"] >= 1
    for done in refused:
        assert (done.code, done.out) == (73, "")
        assert done.err == (
            f"evomerge: my study: another process (process {process.pid}) works on this study; wait for it or stop it\n"
        )
    assert after == before
    assert (process.returncode, out) == (75, "")
    assert err.splitlines()[-1] == (
        "interrupted; nothing is lost. Go on with: evomerge run job.yaml --study 'my study'"
    )


def test_what_is_interrupted_while_it_is_prepared_can_go_on_as_well(
    place: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(models: Models, recipe: Recipe) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(agreement, "check", interrupted)
    before = signal.getsignal(signal.SIGTERM)
    done = command("run", "job.yaml")
    assert (done.code, done.out) == (75, "")
    assert done.err == "interrupted; nothing is lost. Go on with: evomerge run job.yaml\n"
    assert signal.getsignal(signal.SIGTERM) is before
    assert not Path("studies").exists()


def test_check_shows_genes_result_and_requests_by_split(place: Path, command: Command) -> None:
    done = command("check", "job.yaml")
    assert (done.code, done.err) == (0, "")
    assert "2 genes: models.0.weight, models.1.weight" in done.out
    assert "random, 3 trials, strict order" in done.out
    shares = {cells[0]: cells[1:] for line in done.out.splitlines() if len(cells := line.replace("│", " ").split()) > 4}
    # 5 baselines beside 3 trials, 2 finalists and a favourite, or the winner; 4 items of 2 tasks
    assert shares["search"][:3] == ["8", "8", "64"]
    assert shares["select"][:2] == ["8", "8"]
    assert shares["test"][:3] == ["6", "8", "48"]
    assert not Path("studies").exists()


def test_check_says_where_the_search_adds_up_what_cannot_be_compared(place: Path, command: Command) -> None:
    note = "note: the search adds up scores in different units"
    assert note in command("check", "job.yaml").out
    Path("job.yaml").write_text(JOB.replace(", search_by: likelihood", ""))
    assert note not in command("check", "job.yaml").out


def test_check_answers_a_few_items_when_asked(place: Path, command: Command) -> None:
    done = command("check", "job.yaml", "--try", 2)
    assert done.code == 0
    tried = done.out.partition("Everything fits together.")[2]
    assert tried.count("prompt   ") == tried.count("answer   ") == tried.count("score    ") == 4
    assert "prompt   say " in tried
    assert " nats" in tried


def test_clean_removes_what_can_be_made_again(study: Path, command: Command) -> None:
    (study / ".merged.0a1b2c3d.partial").mkdir()
    journal = (study / "journal.db").read_bytes()
    assert (study / "merged" / "model.safetensors").is_file()
    done = command("clean", study)
    assert done.code == 0
    assert {file.name.partition("-")[0] for file in study.iterdir()} == {"job.yaml", "journal.db", "lock"}
    assert (study / "journal.db").read_bytes() == journal


def test_run_makes_again_what_was_cleaned(study: Path, command: Command) -> None:
    before = {file.name: file.read_bytes() for file in (study / "merged").iterdir()}
    assert command("clean", study).code == 0
    assert command("run", "job.yaml", "--study", study).code == 0
    assert {file.name: file.read_bytes() for file in (study / "merged").iterdir()} == before
    assert (study / "result.json").is_file()


def test_clean_all_removes_the_study_and_leaves_what_others_put_there(study: Path, command: Command) -> None:
    (study / "notes.txt").write_text("mine")
    done = command("clean", study, "--all")
    assert (done.code, done.out) == (0, f"removed the study; other files are left in {study}\n")
    assert [file.name for file in study.iterdir()] == ["notes.txt"]


def test_clean_all_removes_the_folder_where_nothing_else_is_in_it(study: Path, command: Command) -> None:
    assert command("clean", study, "--all").out == f"removed {study}\n"
    assert not study.exists()
    assert command("clean", study, "--all").code == 78
