"""A worker thread that processes queued images in batches."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass
class Job:
    """The computation of one image.

    Attributes:
        work: the function to call.
        answer: its result.
        queued: time of the submission, in seconds of `time.monotonic`.
    """

    work: Callable[[], Any]
    answer: Future[Any] = field(default_factory=Future[Any])
    queued: float = field(default_factory=time.monotonic)

    def run(self) -> None:
        """Call the function, unless the answer is cancelled; errors are stored in the answer."""
        if not self.answer.set_running_or_notify_cancel():
            return
        try:
            self.answer.set_result(self.work())
        except BaseException as error:  # raised in the thread that waits for the answer
            self.answer.set_exception(error)


class Batcher:
    """Collect jobs into batches and run them in a worker thread.

    A batch starts if it is full, if no further image is being decoded, or if its first job has waited
    ``wait`` seconds. A single request is therefore never delayed. On the CPU the jobs of a batch run in
    parallel, one thread each; a single job uses all threads.

    Args:
        device: device of the network.
        wait: maximum wait for further jobs, in seconds.
        most: maximum number of jobs per batch.
        observe: function that receives the size and the seconds of every batch.

    Examples:
        >>> batcher = Batcher(torch.device("cpu"), 0.01, 4)
        >>> batcher.start()
        >>> batcher.submit(lambda: 6 * 7).result()
        42
        >>> batcher.close()
    """

    def __init__(
        self,
        device: torch.device,
        wait: float,
        most: int,
        observe: Callable[[int, float], None] = lambda size, seconds: None,
    ) -> None:
        self._device, self._wait, self._most, self._observe = device, wait, most, observe
        self._changed = threading.Condition()
        self._jobs: deque[Job] = deque()
        self._arriving = 0
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="sppnet-batches", daemon=True)

    def start(self) -> None:
        """Start the worker thread."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the worker accepts and runs jobs."""
        return self._thread.is_alive() and not self._closed

    @property
    def waiting(self) -> int:
        """Return the number of jobs in the queue."""
        return len(self._jobs)

    def arriving(self, change: int) -> None:
        """Change the number of jobs that will be submitted soon, for which batches wait."""
        with self._changed:
            self._arriving += change
            self._changed.notify_all()

    def submit(self, work: Callable[[], Any]) -> Future[Any]:
        """Submit a job.

        Raises:
            RuntimeError: the batcher is closed.
        """
        job = Job(work)
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            self._jobs.append(job)
            self._changed.notify_all()
        return job.answer

    def close(self) -> None:
        """Finish the queued jobs, then stop."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()

    def _work(self) -> None:
        threads = torch.get_num_threads()
        if self._device.type != "cpu" or threads < 2 or self._most < 2:
            self._run_batches(None)
            return
        with ThreadPoolExecutor(threads, "sppnet-images", torch.set_num_threads, (1,)) as pool:
            started = threading.Barrier(threads)
            for waiting in [pool.submit(started.wait) for _ in range(threads)]:
                waiting.result()
            # Threads started later take their number of torch threads from the last call.
            torch.set_num_threads(threads)
            self._run_batches(pool)

    def _run_batches(self, pool: ThreadPoolExecutor | None) -> None:
        """Run batches until `close`.

        The threads of the pool are reused: new threads for every batch took 15% more CPU time.
        """
        while batch := self._next():
            started = time.monotonic()
            if pool is None or len(batch) == 1:
                for job in batch:
                    job.run()
            else:
                list(pool.map(Job.run, batch))
            self._observe(len(batch), time.monotonic() - started)

    def _next(self) -> list[Job]:
        """Return the next batch; an empty one after `close`."""
        with self._changed:
            while not self._jobs and not self._closed:
                self._changed.wait()
            if self._jobs:
                deadline = self._jobs[0].queued + self._wait
                while len(self._jobs) < self._most and self._arriving > 0 and not self._closed:
                    left = deadline - time.monotonic()
                    if left <= 0:
                        break
                    self._changed.wait(left)
            return [self._jobs.popleft() for _ in range(min(len(self._jobs), self._most))]
