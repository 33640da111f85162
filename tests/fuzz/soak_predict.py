"""Soak of ``sppnet predict``: many images, some damaged, the process killed at random instants and run again.

    python tests/fuzz/soak_predict.py --count 2000 --share 0.05 --kills 5 --seed 0

Every good image must end with exactly one result and a drawn image, every bad one with exactly one reason.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

LINES = "predictions.jsonl"
POLL_S = 0.002
Start = Callable[[], int]


def encoded(draw: np.random.Generator, kind: str) -> bytes:
    """A small image of random colours."""
    height, width = draw.integers(24, 48, 2)
    buffer = io.BytesIO()
    Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def damaged(draw: np.random.Generator, content: bytes) -> bytes:
    """Content that no reader can take for an image: cut, empty, text, or without its header."""
    match int(draw.integers(0, 5)):
        case 0:
            return content[: len(content) // 2]
        case 1:
            return b""
        case 2:
            return b"this is no image\n"
        case 3:
            return bytes(len(content))
        case _:
            return content[::-1]


def make_images(folder: Path, count: int, share: float, seed: int) -> tuple[set[str], set[str]]:
    """Write images, some of them damaged; the paths of the good ones and of the bad ones."""
    draw = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    bad_numbers = set(draw.choice(count, round(count * share), replace=False).tolist())
    good: set[str] = set()
    bad: set[str] = set()
    for number in range(count):
        kind = ("JPEG", "PNG", "BMP")[number % 3]
        content = encoded(draw, kind)
        path = folder / f"{number:05d}.{kind.lower()}"
        path.write_bytes(damaged(draw, content) if number in bad_numbers else content)
        (bad if number in bad_numbers else good).add(str(path))
    return good, bad


def kill_and_resume(start: Start, out: Path, total: int, kills: int, seed: int) -> list[int]:
    """Start, kill at a random instant, and so on; then let the last one finish.

    Args:
        start: starts the command and returns its process id.
        out: the folder that it writes.
        total: number of images.
        kills: how many times the process is killed before it may finish.
        seed: decides the instants.

    Returns:
        The exit status of each process; a killed one has ``-SIGKILL``.
    """
    draw = random.Random(seed)
    targets = sorted(draw.sample(range(1, total * 9 // 10), kills))
    statuses: list[int] = []
    for target in [*targets, None]:
        process = start()
        delay = draw.random() * 0.02
        status = _wait(process, out, target, delay)
        statuses.append(status)
    return statuses


def check(out: Path, good: set[str], bad: set[str]) -> list[str]:
    """What is wrong with the folder; nothing in the list means that no image was lost."""
    faults: list[str] = []
    results: dict[str, int] = {}
    reasons: dict[str, int] = {}
    for text in (out / LINES).read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        if "error" in line:
            reasons[line["path"]] = reasons.get(line["path"], 0) + 1
        else:
            results[line["path"]] = results.get(line["path"], 0) + 1
            with Image.open(line["drawn"]) as drawn:
                drawn.load()
    faults += [f"{path}: {results.get(path, 0)} results" for path in good if results.get(path) != 1]
    faults += [f"{path}: {reasons.get(path, 0)} reasons" for path in bad if reasons.get(path) != 1]
    faults += [f"{path}: unexpected" for path in (set(results) - good) | (set(reasons) - bad)]
    document = json.loads((out / "predictions.json").read_text(encoding="utf-8"))
    if {one["path"] for one in document["images"]} != good or len(document["images"]) != len(good):
        faults.append("predictions.json: other images than the good ones")
    if {one["path"] for one in document["failed"]} != bad:
        faults.append("predictions.json: other failures than the bad images")
    names = [
        line["drawn"] for line in map(json.loads, (out / LINES).open(encoding="utf-8")) if "drawn" in line
    ]
    if len(set(names)) != len(names):
        faults.append("two images are drawn into one file")
    return faults


def _wait(process: int, out: Path, target: int | None, delay: float) -> int:
    """Wait for the end, or kill the process once ``target`` lines are written; the exit status."""
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if target is not None and _lines(out) >= target:
            time.sleep(delay)
            os.kill(process, signal.SIGKILL)
            return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        time.sleep(POLL_S)


def _lines(out: Path) -> int:
    path = out / LINES
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _fit(folder: Path) -> Path:
    """A classifier that was fitted quickly on a few images of two classes."""
    draw = np.random.default_rng(1)
    for name, low in (("dark", 0), ("light", 128)):
        (folder / "data" / name).mkdir(parents=True)
        for number in range(4):
            pixels = draw.integers(low, low + 128, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "data" / name / f"{number}.png")
    run = folder / "run"
    words = ["fit", "classify", str(folder / "data"), "--out", str(run), "--levels", "2", "1"]
    words += ["--backbone", "builtin", "--device", "cpu"]
    subprocess.run([sys.executable, "-m", "sppnet", *words], check=True)
    return run


def main() -> int:
    """Run the soak with the real command; 0 when nothing was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        good, bad = make_images(folder / "images", asked.count, asked.share, asked.seed)
        run, out = _fit(folder), folder / "out"
        words = ["predict", str(run), str(folder / "images"), "--out", str(out), "--device", "cpu"]

        def start() -> int:
            command = [sys.executable, "-m", "sppnet", *words]
            return os.posix_spawn(
                sys.executable,
                command,
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
                ],
            )

        statuses = kill_and_resume(start, out, asked.count, asked.kills, asked.seed)
        faults = check(out, good, bad)
    print(f"{len(good)} good and {len(bad)} bad images, exit statuses {statuses}, {len(faults)} faults")
    print("\n".join(faults))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
