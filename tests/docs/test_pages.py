"""The pages are tried, not only written: code blocks run in a folder like a reader's, links lead somewhere."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import pytest

from tests.docs.markdown import PAGES, REPOSITORY, anchors, blocks, links
from tests.docs.running import Reader

TRIED = ("README.md", "docs/guide.md", "docs/performance.md")


def text_of(page: str) -> str:
    return (REPOSITORY / page).read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a reader has: the zoo, the jobs and the benchmarks of the repository, and nothing made yet."""
    for name in ("zoo", "benchmarks"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    shutil.copytree(REPOSITORY / "configs", tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EVOMERGE_DEBUG", raising=False)
    monkeypatch.setenv("PROVIDER_KEY", "a-key-of-the-reader")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", TRIED)
def test_every_code_block_of_a_page_runs(page: str, folder: Path) -> None:
    with closing(Reader(folder)) as reader:
        for block in blocks(page, text_of(page)):
            reader.do(block)


@pytest.mark.parametrize("page", [page for page in PAGES if page not in TRIED])
def test_a_page_whose_blocks_are_not_run_has_none_that_could_be(page: str) -> None:
    assert [str(block) for block in blocks(page, text_of(page)) if block.language != "text"] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_to_a_file_and_a_heading_of_it(page: str) -> None:
    for link in links(text_of(page)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (REPOSITORY / page).parent / path if path else REPOSITORY / page
        assert target.exists(), f"{page}: {link} leads nowhere"
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), f"{page}: {link} names no heading"
