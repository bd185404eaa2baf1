"""The journal: nothing that was committed is lost."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from evomerge.errors import StudyBroken
from evomerge.study.journal import Event, ItemScore, Journal


def test_events_come_back_in_their_order(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.db")
    journal.append("ask", 0, {"vector": [0.1, 1 / 3]})
    journal.append("tell", 0, {"fitness": 0.5})
    journal.append("decision", None, {"winner": "x"})
    journal.close()
    events = list(Journal(tmp_path / "j.db").events())
    assert events == [
        Event(1, "ask", 0, {"vector": [0.1, 1 / 3]}),
        Event(2, "tell", 0, {"fitness": 0.5}),
        Event(3, "decision", None, {"winner": "x"}),
    ]
    assert [event.number for event in Journal(tmp_path / "j.db").events(after=2)] == [3]


def test_a_score_that_is_there_stays_as_it_is() -> None:
    journal = Journal(None)
    journal.put_scores("r", "t", "search", [ItemScore("a", 1.0, "yes"), ItemScore("b", None)])
    journal.put_scores("r", "t", "search", [ItemScore("a", 0.0, "no"), ItemScore("c", 0.5)])
    assert journal.scores("r", "t", "search") == {
        "a": ItemScore("a", 1.0, "yes"),
        "b": ItemScore("b", None),
        "c": ItemScore("c", 0.5),
    }
    assert journal.scores("r", "t", "test") == {}
    assert journal.count_scores() == 3


def test_what_was_committed_survives_a_killed_process_and_the_rest_does_not(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from evomerge.study.journal import Journal
journal = Journal(Path({str(tmp_path / "j.db")!r}))
for number in range(3):
    journal.append("ask", number, {{}})
journal.commit()
journal.append("ask", 3, {{}})
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -9
    assert [event.trial for event in Journal(tmp_path / "j.db").events()] == [0, 1, 2]


def test_a_reader_sees_what_is_committed_while_another_writes(tmp_path: Path) -> None:
    writer = Journal(tmp_path / "j.db")
    writer.append("ask", 0, {})
    writer.commit()
    writer.append("ask", 1, {})
    reader = Journal(tmp_path / "j.db", read_only=True)
    assert [event.trial for event in reader.events()] == [0]
    with pytest.raises(StudyBroken, match="cannot be written"):
        reader.append("ask", 2, {})


def test_a_journal_of_a_later_version_is_refused(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.db")
    journal.set_fact("format", 99)
    journal.close()
    with pytest.raises(StudyBroken, match="later version"):
        Journal(tmp_path / "j.db")


def test_a_file_that_is_no_database_is_said_to_be_broken(tmp_path: Path) -> None:
    (tmp_path / "j.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StudyBroken, match="cannot be read"):
        Journal(tmp_path / "j.db")


def test_a_full_disk_is_one_sentence_and_loses_nothing_committed(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.db")
    journal.append("ask", 0, {})
    journal.commit()
    pages = sqlite3.connect(tmp_path / "j.db").execute("PRAGMA page_count").fetchone()[0]
    journal._db.execute(f"PRAGMA max_page_count = {pages + 2}")

    def fill() -> None:
        for number in range(1, 10_000):
            journal.append("ask", number, {"vector": [0.5] * 100})

    with pytest.raises(StudyBroken, match="free some space"):
        fill()
    assert next(iter(Journal(tmp_path / "j.db").events())).trial == 0


def test_numbers_that_json_cannot_hold_are_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        Journal(None).append("tell", 0, {"fitness": float("nan")})


def test_a_journal_that_is_damaged_in_the_middle_is_said_to_be(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    journal = Journal(path)
    for number in range(2000):
        journal.append("ask", number, {"vector": [0.5] * 10})
    journal.close()
    content = bytearray(path.read_bytes())
    content[3 * 4096 : -4096] = b"\xff" * (len(content) - 4 * 4096)
    path.write_bytes(content)
    with pytest.raises(StudyBroken, match=r"j\.db: the journal cannot be read \(.*\); restore it from a copy"):
        list(Journal(path, read_only=True).events())
