"""The blocks of the README and of the documentation run, in order, on small images."""

from __future__ import annotations

from pathlib import Path

import pytest

from documents import PAGES, blocks, blocks_of, commands, run_blocks, write_data, write_runs
from sppnet.cli import main

RUNNABLE = [page for page in PAGES if any(block.runs for block in blocks(page))]


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.name)
def test_the_blocks_of_a_document_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_data(tmp_path)
    if page.parent.name == "docs":
        write_runs(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert run_blocks(blocks(page), main) > 0


def test_the_readme_has_runnable_blocks_of_both_kinds() -> None:
    assert {block.language for block in blocks(PAGES[0]) if block.runs} == {"python", "sh"}


def test_blocks_are_found_and_may_be_left_out() -> None:
    text = "a\n```\nx\n```\n\n<!-- not run: needs a camera -->\n```sh\nsppnet check\n```\n"
    text += "```python\nb = 1\n```\n"
    found = blocks_of(text, Path("page.md"))
    assert [(b.line, b.language, b.text, b.runs) for b in found] == [
        (2, "", "x\n", False),
        (7, "sh", "sppnet check\n", False),
        (10, "python", "b = 1\n", True),
    ]
    assert found[1].left_out == "needs a camera"


def test_a_block_that_fails_is_seen() -> None:
    page = Path("page.md")
    with pytest.raises(ZeroDivisionError):
        run_blocks(blocks_of("```python\na = 0\n```\n```python\n1 / a\n```\n", page), main)
    with pytest.raises(AssertionError, match=r"page\.md:1: sppnet check"):
        run_blocks(blocks_of("```sh\nsppnet check\n```\n", page), lambda words: 2)
    with pytest.raises(AssertionError, match="only sppnet"):
        run_blocks(blocks_of("```sh\nrm -r x\n```\n", page), lambda words: 0)


def test_commands_are_split_as_a_shell_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in "ba":
        (tmp_path / f"{name}.jpg").touch()
    text = "sppnet predict run *.jpg \\\n  --out 'my found'  # a comment\n\n# another\nsppnet check\n"
    assert list(commands(text)) == [
        ["sppnet", "predict", "run", "a.jpg", "b.jpg", "--out", "my found"],
        ["sppnet", "check"],
    ]
