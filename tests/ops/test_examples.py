"""The examples in docstrings and on the pooling page."""

from __future__ import annotations

import doctest
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from sppnet.nn import pyramid as modules
from sppnet.ops import bins, boxes, cells, linear, pyramid


@pytest.mark.parametrize("module", [bins, boxes, cells, linear, pyramid, modules], ids=lambda m: m.__name__)
def test_docstrings(module: ModuleType) -> None:
    result = doctest.testmod(module, extraglobs={"torch": torch})
    assert result.attempted > 0
    assert result.failed == 0


def test_the_pooling_page() -> None:
    page = (Path(__file__).parents[2] / "docs" / "pooling.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    exec(page.split("```python\n")[1].split("```")[0], names)
    assert names["features"].shape == (2, 256 * 50)
