from __future__ import annotations

import threading
import time

import pytest
import torch

from sppnet.features.parallel import parallel_map

CPU = torch.device("cpu")


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_results_keep_their_order_and_come_from_single_threads(three_threads):
    together = threading.Barrier(3, timeout=60)

    def work(number: int) -> tuple[int, int, int]:
        together.wait()  # passes only when three are worked on at once
        return number, torch.get_num_threads(), threading.get_ident()

    found = parallel_map(work, range(12), "some", CPU, quiet=True)
    assert [number for number, _, _ in found] == list(range(12))
    assert {threads for _, threads, _ in found} == {1}
    assert len({thread for _, _, thread in found}) == 3
    assert torch.get_num_threads() == 3
    later = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [3]


def test_a_mistake_ends_the_work_and_reaches_the_caller(three_threads):
    done = []

    def work(number: int) -> None:
        if number == 3:
            raise ValueError("image 3")
        time.sleep(0.02)  # without it, all may be done before the caller learns of the mistake
        done.append(number)

    with pytest.raises(ValueError, match="image 3"):
        parallel_map(work, range(600), "some", CPU, quiet=True)
    assert len(done) < 599
    assert torch.get_num_threads() == 3


def test_one_thread_or_another_device_works_in_turn(three_threads):
    def here(_: int) -> int:
        return threading.get_ident()

    assert set(parallel_map(here, range(4), "some", torch.device("meta"), quiet=True)) == {
        threading.get_ident()
    }
    torch.set_num_threads(1)
    assert set(parallel_map(here, range(4), "some", CPU, quiet=True)) == {threading.get_ident()}
