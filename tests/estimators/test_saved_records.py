"""What a run says of the images and categories that it was fitted on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sppnet.data import FittedOn
from sppnet.errors import UserError
from sppnet.estimators import SavedState


def state(**model: Any) -> SavedState:
    return SavedState(Path("run"), {"x": torch.zeros(1)}, {"names": ["a", "b"], **model})


@pytest.mark.parametrize("ids", [[3, 9], ["x", 2]])
def test_category_ids_are_those_of_the_data(ids: list[int | str]) -> None:
    assert state(category_ids=ids).category_ids() == tuple(ids)


def test_a_run_without_category_ids_counts_from_1() -> None:
    assert state().category_ids() == (1, 2)


@pytest.mark.parametrize("ids", [[], [1], [1, 1], [1, 2, 3], [1.5, 2], [True, 2], "ab", {"a": 1}, [[1], [2]]])
def test_other_category_ids_are_refused(ids: object) -> None:
    with pytest.raises(UserError, match="category_ids"):
        state(category_ids=ids).category_ids()


@pytest.mark.parametrize(
    "record", [[1], {"share": 2}, {"share": 0.2, "seed": 0, "trained": "xyz", "held_out": ""}]
)
def test_a_damaged_record_of_images_is_refused(record: object) -> None:
    with pytest.raises(UserError, match=r"model\.json"):
        FittedOn.from_dict(record, Path("run/model.json"))
