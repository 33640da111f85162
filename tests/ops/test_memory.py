"""Memory of large outputs comes back, and only when nobody sees it any more."""

from __future__ import annotations

import gc

import pytest
import torch

from sppnet.ops.cpu import memory as _memory
from sppnet.ops.cpu.memory import LARGE, new_rows

pytestmark = pytest.mark.skipif(not _memory._BY_PAGES, reason="kept on Linux only")


@pytest.fixture(autouse=True)
def empty_reserve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_memory, "_reserve", _memory._Reserve())


def rows(size: int) -> torch.Tensor:
    return new_rows(1, size // 4, torch.float32)


def test_memory_is_lent_again_once_its_last_view_is_gone() -> None:
    first = rows(LARGE)
    place = first.data_ptr()
    view = first[:, 5:]
    del first
    gc.collect()
    second = rows(LARGE)
    assert second.data_ptr() != place, "still seen by a view"
    del view
    gc.collect()
    third = rows(LARGE)
    assert third.data_ptr() == place


def test_contents_survive_while_somebody_looks() -> None:
    kept = [rows(LARGE).fill_(float(i)) for i in range(4)]
    del kept[1]
    gc.collect()
    kept.append(rows(LARGE).fill_(9.0))
    assert [int(k[0, 0]) for k in kept] == [0, 2, 3, 9]
    assert all(k.eq(k[0, 0]).all() for k in kept)


def test_far_larger_memory_is_not_used_for_little() -> None:
    large = rows(4 * LARGE)
    place = large.data_ptr()
    del large
    gc.collect()
    assert rows(LARGE).data_ptr() != place
    assert rows(3 * LARGE).data_ptr() == place


def test_no_more_is_kept_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_memory, "_KEPT", 3 * LARGE)
    held = [rows(LARGE) for _ in range(6)]
    held.clear()
    gc.collect()
    assert _memory._reserve.kept() <= 3 * LARGE
    rows(4 * LARGE)
    gc.collect()
    assert _memory._reserve.kept() <= 3 * LARGE


def test_only_the_latest_memory_is_kept_from_the_system() -> None:
    held = [rows(LARGE) for _ in range(3)]
    places = [one.data_ptr() for one in held]
    while held:
        held.pop(0)
        gc.collect()
    reserve = _memory._reserve
    assert [torch.frombuffer(m, dtype=torch.uint8).data_ptr() for m in reserve._latest] == places[2:]
    assert [torch.frombuffer(m, dtype=torch.uint8).data_ptr() for m in reserve._waiting] == places[:2]
    assert rows(LARGE).data_ptr() == places[2]


def test_small_outputs_are_torchs_own() -> None:
    rows(LARGE // 2)
    gc.collect()
    assert not _memory._reserve.kept()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_type_has_its_shape(dtype: torch.dtype) -> None:
    made = new_rows(3, 1 << 21, dtype)
    assert made.shape == (3, 1 << 21)
    assert made.dtype == dtype
    assert made.data_ptr() % 64 == 0
    made[-1, -1] = 1
    assert made.is_contiguous()
