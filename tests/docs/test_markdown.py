"""The readers of pages find what stands there, and a shown output that is not printed is noticed."""

from __future__ import annotations

import pytest

from tests.docs.markdown import Block, anchors, blocks, links
from tests.docs.running import compare

PAGE = """# A `page`, and more

<!-- test: small job.yaml -->
<!-- test: exit 78 -->

```bash
evomerge run job.yaml
```

See [the guide](docs/guide.md#first-steps) and `[no](link)`.

````text
```
a fence inside
```
````
"""


def test_blocks_have_their_language_line_text_and_directives() -> None:
    first, second = blocks("p.md", PAGE)
    assert (first.language, first.line, first.text) == ("bash", 6, "evomerge run job.yaml\n")
    assert first.said("small") == ["job.yaml"]
    assert first.said("exit") == ["78"]
    assert (second.language, second.text, second.directives) == ("text", "```\na fence inside\n```\n", ())


def test_links_and_anchors_are_those_outside_of_code() -> None:
    assert links(PAGE) == ["docs/guide.md#first-steps"]
    assert anchors(PAGE) == {"a-page-and-more"}


def test_a_block_that_is_never_closed_and_a_lost_directive_are_errors() -> None:
    with pytest.raises(ValueError, match=r"p\.md:1: this block is never closed"):
        blocks("p.md", "```bash\nls\n")
    with pytest.raises(ValueError, match="no code block"):
        blocks("p.md", "<!-- test: output -->\nsome prose\n")


SHOWN = Block("p.md", 1, "text", "", (("varies", "^The winner"),))


def test_numbers_lines_and_white_space_of_a_shown_output_do_not_matter() -> None:
    compare(
        SHOWN,
        "trial 12: +0.5\n…\nThe winner is 4.\nbase │ 0.1 │ -\nend …",
        "trial 7:  0.25\nsomething\nbase │ 3 │ 4\nend of it\n",
    )


@pytest.mark.parametrize("shown", ["another line", "end\nfirst 1"])
def test_a_shown_line_that_was_not_printed_in_this_order_is_noticed(shown: str) -> None:
    with pytest.raises(AssertionError, match="was not printed"):
        compare(SHOWN, shown, "first 2\nend\n")
