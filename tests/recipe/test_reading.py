"""Reading YAML safely, with messages that name file, line and key."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from evomerge.errors import ConfigError
from evomerge.recipe.reading import parse_yaml, read_yaml, unknown_key
from evomerge.recipe.spec import MergeSettings

RECIPE = "method: ties\nbase: a\nmodels:\n  - {model: b}\n"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 1e5),
        ("-.5", -0.5),
        (".5", 0.5),
        ("1_000", 1000),
        ("007", "007"),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("~", None),
        ('"1"', "1"),
        ("22:00-06:00", "22:00-06:00"),
        ('"22:00"', "22:00"),
        ("0x10", "0x10"),
    ],
)
def test_scalars_are_what_they_look_like(text: str, value: object) -> None:
    assert parse_yaml(f"key: {text}", "f").data == {"key": value}


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: &x 1\nb: *x", 1, "anchors and aliases"),
        ("a: 1\nb: *x", 2, "anchors and aliases"),
        ("a: 1\nb: 2\na: 3", 3, "'a' stands here twice .first in line 1."),
        ("a:\n  <<: {b: 1}", 2, "merge keys"),
        ("a: 1\nstart: 22:00", 2, 'write "22:00"'),
        ("a: !!python/object/apply:os.system [ls]", 1, "tags"),
        ("a: !x 1", 1, "tags"),
        ("a: .nan", 1, "not a number"),
        ("a: .inf", 1, "not a number"),
        ("a: 1e999", 1, "too large"),
        ("a: " + "9" * 400, 1, "too large"),
        ("a: -" + "9" * 5000, 1, "too large"),
        ("a: {b: 1", 1, "not valid YAML"),
        ("a: 1\n---\nb: 2", 2, "second document"),
        ("? [a]\n: 1", 1, "single word"),
        ("a: b: c", 1, "not valid YAML"),
        ('a: "x\\0y"', 1, "NUL"),
        ("a:\n\t- b", 2, "not valid YAML"),
    ],
)
def test_what_is_not_plain_is_refused_with_its_line(text: str, line: int, words: str) -> None:
    with pytest.raises(ConfigError, match=rf"^f\.yaml:{line}: .*{words}"):
        parse_yaml(text, "f.yaml")


@pytest.mark.parametrize("opening", ["[", "{a: "])
def test_extreme_nesting_is_refused_without_recursion(opening: str) -> None:
    with pytest.raises(ConfigError, match="nested more than 32"):
        parse_yaml(opening * 100_000, "f.yaml")


@pytest.mark.parametrize("content", [b"", b"\n\n", b"# only a comment\n", b"---\n"])
def test_an_empty_file_is_said_to_be_empty(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"job\.yaml.*empty"):
        read_yaml(path)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"a: \x00", bytes(range(256)), b"a: \x1b[31m"])
def test_a_binary_file_is_said_not_to_be_text(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="not a text file"):
        read_yaml(path)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_yaml(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match="folder"):
        read_yaml(tmp_path)


def test_a_huge_file_is_not_read_as_a_job(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(b"a" * 5_000_000)
    with pytest.raises(ConfigError, match="bytes"):
        read_yaml(path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("per: 3\n", "f.yaml:5: per: "),
        ("scale: {low: 2, high: 1}\n", "f.yaml:5: scale: low (2) must be below high (1); swap them"),
        ("scale: {low: 0, hihg: 1}\n", "f.yaml:5: scale.hihg: unknown key 'hihg'; did you mean 'high'?"),
        ("scale: {mlp: {low: 0, high: 0}, rest: 1}\n", "f.yaml:5: scale.mlp: low (0) must be below high (0)"),
        ("scale: [1, x]\n", "f.yaml:5: scale[1]: "),
        ("scale: []\n", "f.yaml:5: scale: "),
        ("refactor: {rank: 0}\n", "f.yaml:5: refactor.rank: "),
        ("refactor: {}\n", "f.yaml:5: refactor: 'rank' is missing; add it"),
        ("seed: no\n", "f.yaml:5: seed: "),
    ],
)
def test_messages_name_file_line_and_key(change: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(RECIPE + change, "f.yaml").parse(MergeSettings)
    assert sentence in str(caught.value)


def test_a_missing_key_is_named_with_where_it_belongs() -> None:
    with pytest.raises(ConfigError, match=r"f\.yaml:4: models\[0\]: 'model' is missing; add it"):
        parse_yaml(RECIPE.replace("model: b", "weight: 1"), "f.yaml").parse(MergeSettings)


def test_a_missing_key_that_is_there_misspelt_is_named_with_it() -> None:
    with pytest.raises(ConfigError, match=r"f\.yaml:4: models\[0\]: 'model' is missing; is 'modle' meant to be it\?"):
        parse_yaml(RECIPE.replace("model: b", "modle: b"), "f.yaml").parse(MergeSettings)


def test_an_unknown_key_far_from_all_known_lists_them() -> None:
    assert unknown_key("zzz", ["low", "high"]) == "unknown key 'zzz'; known here: high, low"
    assert "did you mean 'low'" in unknown_key("lwo", ["low", "high"])


words = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=20)
plain = st.recursive(
    words, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3), max_leaves=12
)


@given(st.dictionaries(words, plain, min_size=1, max_size=3))
def test_quoted_yaml_reads_back_as_what_was_written(data: dict[str, object]) -> None:
    assert parse_yaml(yaml.safe_dump(data, default_style='"'), "f").data == data


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_with_a_sentence(text: str) -> None:
    try:
        parse_yaml(text, "f.yaml")
    except ConfigError as error:
        assert str(error).startswith("f.yaml")  # noqa: PT017
