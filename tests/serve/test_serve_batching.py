"""Batches: which jobs share one, and that none is lost."""

from __future__ import annotations

import threading

import pytest
import torch

from sppnet.serve.batching import Batcher


def batcher(wait: float, most: int) -> tuple[Batcher, list[int]]:
    sizes: list[int] = []
    found = Batcher(torch.device("cpu"), wait, most, lambda size, seconds: sizes.append(size))
    return found, sizes


def test_waiting_jobs_share_batches_and_are_finished_at_the_end() -> None:
    batches, sizes = batcher(0.0, 4)
    answers = [batches.submit(lambda i=i: i * i) for i in range(10)]
    batches.start()
    batches.close()
    assert [answer.result(0) for answer in answers] == [i * i for i in range(10)]
    assert sizes == [4, 4, 2]
    with pytest.raises(RuntimeError):
        batches.submit(int)


def test_a_batch_waits_for_jobs_that_are_arriving() -> None:
    batches, sizes = batcher(60.0, 16)
    batches.start()
    batches.arriving(2)
    first = batches.submit(lambda: 1)
    batches.arriving(-1)
    second = batches.submit(lambda: 2)
    batches.arriving(-1)
    assert (first.result(60), second.result(60)) == (1, 2)
    batches.close()
    assert sizes == [2]


def test_a_job_that_comes_alone_does_not_wait() -> None:
    batches, sizes = batcher(3600.0, 16)
    batches.start()
    assert batches.submit(lambda: 1).result(60) == 1
    batches.close()
    assert sizes == [1]


def test_an_error_stays_with_its_job() -> None:
    batches, _ = batcher(0.0, 4)

    def fail() -> None:
        raise KeyError("x")

    bad, good = batches.submit(fail), batches.submit(threading.get_ident)
    batches.start()
    with pytest.raises(KeyError):
        bad.result(60)
    assert good.result(60) != threading.get_ident()
    batches.close()


def test_a_job_that_was_given_up_is_not_computed() -> None:
    batches, _ = batcher(0.0, 4)
    done: list[int] = []
    given_up = batches.submit(lambda: done.append(1))
    kept = batches.submit(lambda: done.append(2))
    assert given_up.cancel()
    batches.start()
    kept.result(60)
    batches.close()
    assert done == [2]
