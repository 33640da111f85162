"""The `Examples` blocks of docstrings, in every module of the package that has one."""

from __future__ import annotations

import doctest
import functools
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sppnet

ROOT = Path(sppnet.__file__).parent
EXAMPLE = re.compile(r"^ *>>> (?!.*\+SKIP)", re.MULTILINE)
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules_with_examples() -> list[str]:
    """By their source: a module need not be imported to be listed. Skipped examples do not count."""
    files = sorted(ROOT.rglob("*.py"))
    return [module_name(path) for path in files if EXAMPLE.search(path.read_text(encoding="utf-8"))]


def _fixture(folder: Path, request: Any, name: str) -> object:
    return folder if name == "tmp_path" else request.getfixturevalue(name)


def run_examples(name: str, folder: Path | None = None, **known: object) -> doctest.TestResults:
    """Run all examples of a module; failures are printed.

    Args:
        name: of the module.
        folder: each docstring gets a folder of its own in it, as the fixture ``tmp_path``.
        known: what examples may use beside the module's own names.
    """
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    finder = doctest.DocTestFinder(exclude_empty=True)
    for found in finder.find(import_module(name), extraglobs={"torch": torch, "np": np, **known}):
        if folder is not None:
            own = folder / found.name.rpartition(".")[2]
            own.mkdir(exist_ok=True)
            found.globs["getfixture"] = functools.partial(_fixture, own, known["request"])
        runner.run(found)
    return runner.summarize(verbose=False)


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_hold(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(tmp_path)  # what an example writes
    done = run_examples(name, tmp_path, request=request)
    assert done.attempted > 0, "no example was found: is the object hidden by a decorator?"
    assert done.failed == 0


def test_an_example_that_does_not_hold_is_seen(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    from sppnet import errors

    monkeypatch.setattr(errors, "__doc__", "Errors.\n\n>>> 1 + 1\n3\n")
    assert run_examples("sppnet.errors").failed == 1
    assert "Expected:\n    3" in capsys.readouterr().out
