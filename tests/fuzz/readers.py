"""Feed mutated data sets and proposals to every reader: each succeeds or raises `UserError`.

    python tests/fuzz/readers.py --count 20000 --seed 1 [--target coco]

Files lie in a folder in memory where the system has one. A case is made from the seed and its number
alone, so that ``--only NUMBER`` repeats it.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from pathlib import Path
from random import Random
from types import FrameType

from mutations import change_folder, mutated
from tiny_sets import Target, targets

from sppnet.errors import UserError

LONGEST_MESSAGE = 6000  # characters
SECONDS = 20  # of one case; a case takes some milliseconds


def run(
    count: int,
    seed: int,
    root: Path,
    only: int | None = None,
    target: str | None = None,
    watched: bool = False,
) -> Counter[str]:
    """Read ``count`` mutated inputs.

    Args:
        count: the number of cases.
        seed: changes every case.
        root: an empty folder for the files.
        only: the number of a case that is repeated alone.
        target: the only data set to mutate; all in turn when None.
        watched: a case that takes too long fails, by an alarm of the process.

    Returns:
        How many were read, refused, and raised anything else, by data set and in sum; an interrupt
        ends the run early.
    """
    every = {name: one for name, one in targets().items() if target in {None, name}}
    outcomes: Counter[str] = Counter()
    names = list(every)
    for name, one in every.items():
        write(root / name, one)
        one.read(root / name)  # a data set that is not mutated is read
    try:
        for number in range(count) if only is None else (only,):
            name = names[number % len(names)]
            outcome = run_case(root / name, every[name], Random(f"{seed} {number}"), watched)
            outcomes[f"{name} {outcome}"] += 1
            outcomes[outcome] += 1
            if outcome == "failed":
                print(f"--seed {seed} --only {number} ({name})", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    return outcomes


def write(root: Path, target: Target) -> None:
    shutil.rmtree(root, ignore_errors=True)
    for name, content in target.files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def run_case(root: Path, target: Target, rng: Random, watched: bool = False) -> str:
    """Mutate one data set, read it, and put it back: ``"read"``, ``"refused"`` or ``"failed"``."""
    names = list(target.files)
    in_folder = rng.random() < 0.1
    if in_folder:
        change_folder(root, names, rng)
    else:
        name = rng.choice([name for name in names if not name.endswith(".png")])
        (root / name).write_bytes(mutated(target.files[name], name, rng))
    try:
        signal.setitimer(signal.ITIMER_REAL, SECONDS if watched else 0)
        target.read(root)
        return "read"
    except UserError as error:
        if "\n" not in str(error) and len(str(error)) < LONGEST_MESSAGE:
            return "refused"
        print(f"a message of {len(str(error))} characters: {str(error)[:300]}", file=sys.stderr)
        return "failed"
    except Exception:
        traceback.print_exc()
        return "failed"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        if in_folder:
            write(root, target)
        else:
            (root / name).write_bytes(target.files[name])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int)
    parser.add_argument("--target", choices=sorted(targets()))
    options = parser.parse_args()
    limit_memory(3 << 30)
    signal.signal(signal.SIGALRM, too_long)
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.default_int_handler)
    memory = Path("/dev/shm")
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        outcomes = run(options.count, options.seed, Path(folder), options.only, options.target, watched=True)
    for outcome, number in sorted(outcomes.items()):
        print(f"{outcome}: {number}")
    return 1 if outcomes["failed"] else 0


def limit_memory(more: int) -> None:
    """Let the process have ``more`` bytes of address space beyond what it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def too_long(_signal: int, _frame: FrameType | None) -> None:
    raise TimeoutError(f"a case of more than {SECONDS} s")


if __name__ == "__main__":
    sys.exit(main())
