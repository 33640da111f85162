from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sppnet.errors import UserError
from sppnet.proposals import ProposalSource
from sppnet.proposals import source as source_module
from sppnet.structures import Boxes, ImageSize, Proposals

SIZE = ImageSize(40, 60)
ROWS = torch.tensor([[float(i), 0, i + 20, 30] for i in range(10)])


@pytest.mark.parametrize("most", [1, 3, 9, 10, 50])
def test_a_table_is_ranked_and_a_search_is_not(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    table = ProposalSource(most=most, table={"a.jpg": ROWS})
    assert torch.equal(table.boxes(SIZE, Path("x/a.jpg")).xyxy, ROWS[:most])
    found = Boxes(ROWS, SIZE)
    monkeypatch.setattr(source_module, "selective_search", lambda image: Proposals(found, torch.zeros(10)))
    boxes = ProposalSource("selective-search", most).boxes(SIZE, None, lambda: torch.zeros(3, 40, 60)).xyxy
    assert len(boxes) == min(most, 10)
    kept = boxes[:, 0].long().tolist()
    assert kept == sorted(set(kept))
    assert most < 2 or np.diff(kept).max() - np.diff(kept).min() <= 1  # evenly spread


def test_what_a_search_found_may_be_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "selective_search", None)  # it would fail if it were called
    source = ProposalSource("selective-search")
    boxes = source.boxes(SIZE, None, lambda: torch.zeros(3, 40, 60), lambda search: {"boxes": ROWS})
    assert torch.equal(boxes.xyxy, ROWS)


def test_only_dense_windows_depend_on_the_size_alone() -> None:
    shapes = torch.tensor([[0.5, 0.5]])
    assert ProposalSource(shapes=shapes).depends_on_size
    assert not ProposalSource(shapes=shapes, table={}).depends_on_size
    assert not ProposalSource("selective-search").depends_on_size


def test_an_image_in_memory_has_no_boxes_in_a_table() -> None:
    with pytest.raises(UserError, match="image in memory"):
        ProposalSource(table={"a.jpg": ROWS}).boxes(SIZE)
