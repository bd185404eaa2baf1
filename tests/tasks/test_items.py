import csv
import hashlib
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.errors import SourceError
from evomerge.tasks import read_items

ROOT = Path(__file__).resolve().parents[2]

Write = Callable[..., Path]


def message(path: Path) -> str:
    with pytest.raises(SourceError) as caught:
        read_items(path, path.name)
    text = str(caught.value)
    assert text.startswith(path.name)
    assert "\n" not in text
    return text


def test_jsonl_items_keep_their_fields_and_lines(write: Write) -> None:
    path = write("a.jsonl", '{"q": "one", "n": 1}\n\n  {"q": "two", "tags": ["x", "y"]}  \n')
    first, second = read_items(path, "data/a.jsonl")
    assert (first.line, dict(first.fields)) == (1, {"q": "one", "n": 1})
    assert (second.line, second.where, second.fields["tags"]) == (3, "data/a.jsonl:3", ["x", "y"])


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_line_ends_and_byte_order_mark_change_nothing(write: Write, ending: str, bom: bytes) -> None:
    plain = read_items(write("plain.jsonl", '{"q": "é"}\n{"q": "2"}\n'), "x")
    other = read_items(write("other.jsonl", bom + f'{{"q": "é"}}{ending}{{"q": "2"}}{ending}'.encode()), "x")
    assert other == plain
    table = read_items(write("plain.csv", "q,a\né,1\n"), "x")
    assert read_items(write("other.csv", bom + f"q,a{ending}é,1{ending}".encode()), "x") == table
    assert dict(table[0].fields) == {"q": "é", "a": "1"}


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_only_a_line_feed_ends_a_jsonl_line(write: Write, separator: str) -> None:
    raw = json.dumps({"q": f"a{separator}b"}, ensure_ascii=ord(separator) < 32)
    (item,) = read_items(write("a.jsonl", raw + "\n"), "x")
    assert item.fields["q"] == f"a{separator}b"


def test_a_line_of_ten_megabytes_is_an_item(write: Write) -> None:
    long = "x" * 10_000_000
    assert read_items(write("a.jsonl", [{"q": long}]), "x")[0].fields["q"] == long
    limit = csv.field_size_limit()
    assert read_items(write("a.csv", f"q\n{long}\n"), "x")[0].fields["q"] == long
    assert csv.field_size_limit() == limit


def test_an_id_depends_on_the_fields_alone(write: Write) -> None:
    first, second = read_items(write("a.jsonl", '{"a": 1, "b": "é"}\n{"b": "\\u00e9", "a": 1}\n'), "x")
    assert first.id == second.id
    assert first == second
    others = read_items(write("b.jsonl", '{"a": "1", "b": "é"}\n{"a": 1}\n{"a": 1, "b": "É"}\n'), "x")
    assert len({first.id, *(item.id for item in others)}) == 4


def test_an_id_is_the_same_in_every_process(write: Write) -> None:
    path = write("a.jsonl", [{"b": [1, 2.5, None], "a": "ü"}])
    code = "import sys, pathlib, evomerge.tasks as t; print(t.read_items(pathlib.Path(sys.argv[1]), 'x')[0].id)"
    printed = {
        subprocess.run(
            [sys.executable, "-c", code, path],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    canonical = b'{"a":"\\u00fc","b":[1,2.5,null]}'
    assert printed == {hashlib.sha256(canonical).hexdigest()[:16] + "\n"}


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        ('{"q": 1}\n{"q": \n', 2, "not JSON"),
        ('{"q": 1}\n[1, 2]\n', 2, "JSON object"),
        ('"words"\n', 1, "JSON object"),
        ("{}\n", 1, "no fields"),
        ('{"q": 1, "q": 2}\n', 1, "'q' stands twice"),
        ('{"q": NaN}\n', 1, "NaN"),
        ('{"q": -Infinity}\n', 1, "Infinity"),
        ('{"q": 1e999}\n', 1, "1e999"),
        ('{"q": ' + "9" * 5000 + "}\n", 1, "5000 digits"),
        ('{"q": "\\ud800"}\n', 1, "half of a character"),
        ('{"q": ' + "[" * 100_000 + "\n", 1, "nested"),
        (b'{"q": "a"}\n{"q": "\xff"}\n', 2, "not UTF-8"),
        (b'{"q": "a"}\n{"q": "\0"}\n', 2, "NUL"),
    ],
)
def test_a_broken_jsonl_line_is_named(write: Write, content: str | bytes, line: int, words: str) -> None:
    text = message(write("broken.jsonl", content))
    assert text.startswith(f"broken.jsonl:{line}: ")
    assert words in text


@pytest.mark.parametrize(
    ("content", "where", "words"),
    [
        ("q,a\n1,2\n3\n", ":3", "1 cells"),
        ("q,a\n1,2,3\n", ":2", "3 cells"),
        ("q,,a\n1,2,3\n", ":1", "column 2 has no name"),
        ("q,a,q\n1,2,3\n", ":1", "'q' stands twice"),
        ('q,a\n1,"2\n3,4\n', ":2", "not CSV"),
        ('q,a\n"1" x,2\n', ":2", "not CSV"),
        (b"q,a\n1,\xff\n", ":2", "not UTF-8"),
        (b"q,a\n1,\0\n", ":2", "NUL"),
        ("q,a\n", "", "no item"),
    ],
)
def test_a_broken_csv_row_is_named(write: Write, content: str | bytes, where: str, words: str) -> None:
    text = message(write("broken.csv", content))
    assert text.startswith(f"broken.csv{where}: ")
    assert words in text


@pytest.mark.parametrize("name", ["empty.jsonl", "empty.csv", "blank.jsonl"])
def test_an_empty_file_is_refused(write: Write, name: str) -> None:
    assert "no item" in message(write(name, "\n \n" if name.startswith("blank") else ""))


def test_files_that_are_no_data_are_refused(write: Write, tmp_path: Path) -> None:
    assert "no such file" in message(tmp_path / "gone.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    assert "folder" in message(tmp_path / "folder.jsonl")
    assert ".jsonl" in message(write("items.parquet", b"PAR1"))
    assert "UTF-16" in message(write("wide.csv", "q,a\n1,2\n".encode("utf-16")))


def test_a_quoted_cell_may_hold_commas_quotes_and_lines(write: Write) -> None:
    path = write("a.csv", 'q,a\n"one, ""two""\nthree",4\n5,6\n')
    first, second = read_items(path, "x")
    assert dict(first.fields) == {"q": 'one, "two"\nthree', "a": "4"}
    assert (first.line, second.line) == (2, 4)


def test_many_fields_are_not_all_shown(write: Write) -> None:
    (item,) = read_items(write("a.jsonl", [{f"field{n}": n for n in range(100)}]), "x")
    assert item.field_names.startswith("'field0', 'field1'")
    assert item.field_names.endswith("…")


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@given(rows=st.lists(st.dictionaries(texts, plain, min_size=1, max_size=4), min_size=1, max_size=5))
@settings(deadline=None)
def test_what_json_writes_is_read_back(rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("rows") / "a.jsonl"
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8", newline="")
    assert [dict(item.fields) for item in read_items(path, "x")] == rows


@given(cells=st.lists(st.tuples(texts, texts), min_size=1, max_size=5))
@settings(deadline=None)
def test_what_csv_writes_is_read_back(cells: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory) -> None:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([("q", "a"), *cells])
    path = tmp_path_factory.mktemp("rows") / "a.csv"
    path.write_text(text.getvalue(), encoding="utf-8", newline="")
    assert [(item.fields["q"], item.fields["a"]) for item in read_items(path, "x")] == cells


@given(content=st.binary(max_size=200), suffix=st.sampled_from([".jsonl", ".csv"]))
@settings(deadline=None)
def test_any_bytes_are_items_or_one_sentence(
    content: bytes, suffix: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("rows") / f"a{suffix}"
    path.write_bytes(content)
    try:
        items = read_items(path, path.name)
    except SourceError:
        message(path)
    else:
        assert items
