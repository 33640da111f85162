"""Fuzz target for run folders: random changes of whole runs, then load and predict.

    python tests/fuzz/run_folders.py --count 60000 --seed 0

Allowed outcomes are a `UserError` of one line, or a prediction whose scores are finite. Half of the changes
keep the checksums right, so that they reach the checks behind them. Every execution is decided by the seed
and its number; ``--only N`` repeats one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import random
import shutil
import struct
import sys
import tempfile
import tomllib
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tomli_w
import torch
from safetensors.torch import load, save
from tiny_runs import make_data, make_estimators

import sppnet
from sppnet.errors import UserError

FILES = ("model.json", "config.toml", "model.safetensors")
Run = dict[str, bytes]

WEIRD: tuple[Callable[[random.Random], Any], ...] = (
    lambda _: None,
    lambda _: True,
    lambda _: 0,
    lambda _: -1,
    lambda r: r.choice([2**31, 2**63, 10**30, -(2**63), 10**400]),
    lambda r: r.choice([1e308, -1e308, 1e-308, 0.5, -0.0, math.inf, math.nan]),
    lambda r: r.choice(["", "builtin", "zf5", "random:zf5-small/32", "\x00", "a" * 5000, "../..", "ü\u202e"]),
    lambda r: [r.choice([0, 1, -1, "x", None, 2**40])] * r.choice([0, 1, 3, 100]),
    lambda _: {},
    lambda _: {"a": {"b": [1, {"c": None}]}},
    lambda r: r.randint(-5, 5000),
    lambda r: r.uniform(-10, 10),
)


def weird(draw: random.Random) -> Any:
    return draw.choice(WEIRD)(draw)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every key and index inside a JSON or TOML value."""
    found: list[tuple[Any, ...]] = []
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        found += [(*path, key), *places(inner, (*path, key))]
    return found


def change_value(value: Any, draw: random.Random) -> None:
    """Change, remove, double or nudge one place of a JSON or TOML table."""
    path = draw.choice(places(value) or [()])
    if not path:
        value["new"] = weird(draw)
        return
    at = value
    for key in path[:-1]:
        at = at[key]
    old, key = at[path[-1]], path[-1]
    match draw.randrange(5):
        case 0:
            del at[key]
        case 1 if isinstance(at, list):
            at.insert(key, old)
        case 2 if isinstance(old, (int, float)) and not isinstance(old, bool):
            at[key] = old * draw.choice([-1, 0, 2, 10, 1000]) + draw.choice([0, 1, -1])
        case 3 if isinstance(at, dict):
            at[draw.choice(["", "new", "names", "options"])] = at.pop(key)
        case _:
            at[key] = weird(draw)


def change_json(run: Run, draw: random.Random) -> None:
    model = json.loads(run["model.json"])
    for _ in range(draw.choice([1, 1, 1, 3])):
        change_value(model, draw)
    run["model.json"] = json.dumps(model).encode()


def change_toml(run: Run, draw: random.Random) -> None:
    config = tomllib.loads(run["config.toml"].decode())
    change_value(config, draw)
    try:
        run["config.toml"] = tomli_w.dumps(config).encode("utf-8", "replace")
    except (TypeError, ValueError):  # what TOML cannot hold
        run["config.toml"] = b"seed = " + b"9" * 5000


def change_tensors(run: Run, draw: random.Random) -> None:
    tensors = load(run["model.safetensors"])
    for _ in range(draw.choice([1, 1, 2])):
        name = draw.choice(sorted(tensors))
        tensors = change_tensor(tensors, name, draw)
        if not tensors:
            break
    run["model.safetensors"] = save({name: tensor.contiguous().clone() for name, tensor in tensors.items()})


def change_tensor(
    tensors: dict[str, torch.Tensor], name: str, draw: random.Random
) -> dict[str, torch.Tensor]:
    tensor = tensors[name].clone()
    flat = tensor.flatten()
    some = draw.randrange(max(1, flat.numel()))
    floats = tensor.is_floating_point() and flat.numel() > 0
    match draw.randrange(12):
        case 0 if floats:
            flat[some] = draw.choice([math.nan, math.inf, -math.inf])
        case 1 if floats:
            flat[some] = draw.choice([1e38, -1e38, 1e14, 1e-45])
        case 2 if floats:
            flat *= draw.choice([0.0, -1.0, 1e6, 1e14, 1e30])
        case 3:
            return {
                **tensors,
                name: flat.to(draw.choice([torch.float64, torch.float16, torch.int64, torch.bool])),
            }
        case 4:
            return {**tensors, name: tensor[:-1] if tensor.ndim else tensor[None]}
        case 5:
            return {**tensors, name: tensor.unsqueeze(draw.choice([0, -1]))}
        case 6:
            return {**tensors, name: tensor.movedim(0, -1) if tensor.ndim > 1 else flat[:0]}
        case 7:
            return {other: value for other, value in tensors.items() if other != name}
        case 8:
            return {**tensors, draw.choice(["new", "backbone.new", name + ".x", ""]): tensor}
        case 9:
            other = draw.choice(sorted(tensors))
            return {**tensors, name: tensors[other], other: tensor}
        case 10:
            return {("renamed" if other == name else other): value for other, value in tensors.items()}
        case _ if floats:
            bits = torch.tensor([draw.randrange(-(2**31), 2**31)], dtype=torch.int32).view(torch.float32)
            flat[some] = bits[0].to(flat.dtype)
    return {**tensors, name: flat.reshape(tensor.shape)}


def change_bytes(run: Run, draw: random.Random) -> None:
    name = draw.choice(FILES)
    content = bytearray(run[name])
    match draw.randrange(6):
        case 0:
            for _ in range(draw.choice([1, 1, 4, 40])):
                content[draw.randrange(len(content))] = draw.randrange(256)
        case 1:
            del content[draw.randrange(len(content)) :]
        case 2:
            content += draw.randbytes(draw.choice([1, 8, 1000]))
        case 3:
            content = bytearray(draw.randbytes(draw.choice([0, 1, 8, 300])))
        case 4:
            start = draw.randrange(len(content))
            content[start : start + 16] = draw.choice([b"", b"[" * 100_000, b"\xff" * 16, b"\x00" * 16])
        case _:
            content[:8] = struct.pack("<Q", draw.choice([0, 1, 2**63, 2**32, len(content)]))
    run[name] = bytes(content)


def change_header(run: Run, draw: random.Random) -> None:
    """The JSON header of the tensors' file, its length kept right."""
    content = run["model.safetensors"]
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    change_value(header, draw)
    text = json.dumps(header).encode()
    run["model.safetensors"] = len(text).to_bytes(8, "little") + text + content[8 + length :]


def seal(run: Run, *, version: int) -> None:
    """Make the checksums right, or write a run of format 1, which has none."""
    try:
        model = json.loads(run["model.json"])
    except (ValueError, RecursionError):
        return
    if not isinstance(model, dict):
        return
    model["format"] = version if model.get("format") == 2 else model.get("format")
    if version == 1:
        model.pop("files", None)
    elif isinstance(model.get("files"), dict):
        for name in ("config.toml", "model.safetensors"):
            if name in model["files"]:
                model["files"][name] = hashlib.sha256(run[name]).hexdigest()
    model.pop("sha256", None)
    plain = json.dumps(model, sort_keys=True)
    run["model.json"] = json.dumps({**model, "sha256": hashlib.sha256(plain.encode()).hexdigest()}).encode()


def place_oddity(folder: Path, draw: random.Random) -> None:
    """Something that is no file in place of one."""
    path = folder / draw.choice(FILES)
    path.unlink()
    match draw.randrange(5):
        case 0:
            path.mkdir()
        case 1:
            path.symlink_to(path.name)
        case 2:
            path.symlink_to("nowhere")
        case 3 if hasattr(os, "mkfifo"):
            os.mkfifo(path)
        case _:
            pass


CHANGES = (
    change_bytes,
    change_json,
    change_json,
    change_toml,
    change_toml,
    change_tensors,
    change_tensors,
    change_header,
)


def changed(runs: dict[str, Run], draw: random.Random) -> Run:
    """One changed run."""
    run = dict(runs[draw.choice(sorted(runs))])
    if draw.random() < 0.05:
        name = draw.choice(FILES)
        run[name] = runs[draw.choice(sorted(runs))][name]
    else:
        draw.choice(CHANGES)(run, draw)
    version = draw.choice([0, 1, 2, 2])
    if version:
        seal(run, version=version)
    return run


class Target:
    """Runs of every kind, and what happens when a changed one is loaded."""

    def __init__(self, folder: Path) -> None:
        self.place = folder / "changed"
        data = make_data(folder / "data")
        self.image = data.image
        self.runs: dict[str, Run] = {}
        for name, estimator in make_estimators(data).items():
            saved = estimator.save(folder / name)
            self.runs[name] = {file: (saved / file).read_bytes() for file in FILES}

    def execute(self, seed: int, number: int) -> str:
        """The outcome of one execution: ``"works"`` or ``"UserError"``; everything else is raised."""
        draw = random.Random(f"{seed} {number}")
        run = changed(self.runs, draw)
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir()
        for name, content in run.items():
            (self.place / name).write_bytes(content)
        if draw.random() < 0.02:
            place_oddity(self.place, draw)
        try:
            found = sppnet.load(self.place, "cpu").predict(self.image, threshold=0.0)
        except UserError as error:
            said = str(error)
        else:
            assert bool(torch.isfinite(found.scores).all()), "scores that are not finite"
            return "works"
        assert "\n" not in said
        assert len(said) < 2000, said
        return "UserError"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int)
    flags = parser.parse_args()
    torch.set_num_threads(1)
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        target = Target(Path(folder))
        numbers = range(flags.start, flags.start + flags.count) if flags.only is None else [flags.only]
        for number in numbers:
            try:
                outcome = target.execute(flags.seed, number)
            except Exception as error:
                frame = traceback.extract_tb(error.__traceback__)[-1]
                outcome = f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"
                if not outcomes[outcome]:
                    print(f"--only {number}: {outcome}: {str(error)[:300]}", flush=True)
                    if flags.only is not None:
                        traceback.print_exc()
            outcomes[outcome] += 1
    print(dict(outcomes))
    return int(bool(outcomes.keys() - {"works", "UserError"}))


if __name__ == "__main__":
    sys.exit(main())
