"""Load test on the loopback device: throughput, latency, answers to bad requests, memory.

    python tests/serve/load.py --run RUN --requests 256 --clients 1 8 64

Two servers are started, one with batches and one without, and loaded in turn, so that background load affects
both equally. A fifth of the requests is bad. Every request must be answered: good ones with 200, bad ones
with 4xx. The exit code is 1 otherwise. Without ``--run`` a small detector is fitted first.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
from running_server import started
from serve_images import OPTIONS, detection_set, png

SIZES = ((48, 64), (120, 160), (96, 300), (240, 320), (480, 640))
BATCHED, SINGLE = ("--max-batch=16",), ("--max-batch=1",)


@dataclass(frozen=True)
class Sent:
    """A request: body, content type, and whether it is a good one."""

    body: bytes
    kind: str
    good: bool


@dataclass(frozen=True)
class Load:
    """What a load gave."""

    statuses: dict[str, int]
    wrong: int
    per_second: float
    p50_ms: float
    p99_ms: float


def requests(count: int, seed: int = 0) -> list[Sent]:
    """Images of mixed sizes; every fifth request is bad."""
    draw = random.Random(seed)
    images = [png(i, size=size) for i, size in enumerate(SIZES)]
    bad = [
        Sent(images[3][:500], "image/png", False),
        Sent(b"no image", "image/jpeg", False),
        Sent(b"", "image/png", False),
        Sent(images[0], "text/plain", False),
        Sent(images[0], "multipart/form-data; boundary=x", False),
        Sent(bytes(21 * 2**20), "image/png", False),
    ]
    good = [Sent(image, "image/png", True) for image in images]
    return [draw.choice(bad) if i % 5 == 4 else draw.choice(good) for i in range(count)]


def run_load(url: str, clients: int, sent: Sequence[Sent]) -> Load:
    """Send all requests from ``clients`` threads, each the next one as soon as it has its answer."""
    waiting = iter(sent)

    def client(_: int) -> list[tuple[bool, str, float]]:
        answers: list[tuple[bool, str, float]] = []
        with httpx.Client(timeout=300) as session:
            # next() of one iterator by several threads is atomic: it is a list's.
            for one in waiting:
                before = time.perf_counter()
                try:
                    headers = {"content-type": one.kind}
                    answer = session.post(f"{url}/predict", content=one.body, headers=headers)
                    status = str(answer.status_code)
                    answer.json()
                except (httpx.HTTPError, ValueError) as error:
                    status = type(error).__name__
                answers.append((one.good, status, time.perf_counter() - before))
        return answers

    before = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        answers = [answer for found in pool.map(client, range(clients)) for answer in found]
    seconds = time.perf_counter() - before
    wrong = sum(status != "200" if good else not status.startswith("4") for good, status, _ in answers)
    times = [1000 * spent for good, _, spent in answers if good]
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return Load(
        dict(sorted(Counter(status for _, status, _ in answers).items())),
        wrong + abs(len(answers) - len(sent)),
        round(len(answers) / seconds, 2),
        round(cuts[49], 1),
        round(cuts[98], 1),
    )


def memory_mb(process: int) -> float:
    """Resident memory of a process."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024, 1)


def fitted(folder: Path) -> Path:
    """A small detector's run."""
    from sppnet.detect import Detector

    return (
        Detector("builtin", device="cpu", options=OPTIONS)
        .fit(detection_set(folder / "data", 6), quiet=True)
        .save(folder / "run")
    )


def main(words: Sequence[str] | None = None) -> int:
    """Load both servers and print a table, or JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path)
    parser.add_argument("--requests", type=int, default=256)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    flags = parser.parse_args(words)
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        run = flags.run or fitted(Path(folder))
        with started(run, *BATCHED) as batched, started(run, *SINGLE) as single:
            servers = {"batches": batched, "single": single}
            for _, url in servers.values():
                run_load(url, 8, requests(40))
            for turn in range(flags.rounds):
                for clients in flags.clients:
                    for name, (process, url) in servers.items():
                        load = run_load(url, clients, requests(flags.requests, turn))
                        row = {
                            "server": name,
                            "clients": clients,
                            **vars(load),
                            "rss_mb": memory_mb(process.pid),
                        }
                        rows.append(row)
                        if not flags.json:
                            print(json.dumps(row), flush=True)
    if flags.json:
        print(json.dumps({"rows": rows}, indent=2))
    return 1 if any(row["wrong"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
