"""Kill writers and look at what they leave: a run must load whole, and the same save must work again.

    python tests/fuzz/kill_saves.py --count 500 --seed 0

A warm child is forked for every kill. Half of the children are killed by ``SIGKILL`` before a random call
that touches the file system, so that every gap between two such calls is hit; the others after a random
delay. ``--count`` is the number of kills of each kind of save.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from kill_outputs import Kind, no_work, output_kinds
from safetensors.torch import load_file
from tiny_runs import TinyData, make_data, make_estimators

import sppnet
from sppnet.classify import NetworkClassifier
from sppnet.cli import main as shell
from sppnet.cli.evaluate import evaluate_run
from sppnet.errors import UserError
from sppnet.estimators import Estimator

CALLS = ("open", "write", "replace", "unlink", "fsync", "close", "mkdir", "rmdir", "scandir")
"""The calls of `os` before which a child may be killed; Python's own files are opened by ``io``."""


def whole(states: list[Any], data: TinyData) -> Callable[[Path], None]:
    """A check that the run is one of ``states``, tensor for tensor; None among them allows no run at all."""

    def check(folder: Path) -> None:
        if None in states and not (folder / "model.json").exists():
            return
        found = sppnet.load(folder, "cpu")
        scores = found.predict(data.image, threshold=0.0).scores
        assert any(
            state is not None
            and found.get_params() == state.get_params()
            and torch.allclose(state.predict(data.image, threshold=0.0).scores, scores, atol=1e-5)
            for state in states
        ), "neither the old run nor the new one"
        for name in ("metrics.json", "report.html"):
            assert not (folder / name).exists() or (folder / name).stat().st_size

    return check


def estimator_kinds(data: TinyData) -> dict[str, Kind]:
    """Saving each kind of estimator: into a new folder, and over a run of another kind."""
    made = make_estimators(data)
    kinds: dict[str, Kind] = {}
    for name in ("detector", "paper", "classifier", "network"):
        new = made[name]
        old = made["network of one size" if name != "network" else "classifier"]
        ours = whole([new], data)
        kinds[f"{name}, new"] = Kind(no_work, saving(new), whole([None, new], data), ours)
        kinds[f"{name}, over another run"] = Kind(saving(old), saving(new), whole([old, new], data), ours)
    detector = made["detector"]
    again = made["detector without iou head"]
    kinds["update of a detector"] = Kind(
        saving(again), saving(detector), whole([again, detector], data), whole([detector], data)
    )
    kinds["metrics and report"] = evaluation_kind(detector, data)
    kinds["predictions"] = prediction_kind(detector, data)
    network = made["network"]
    assert isinstance(network, NetworkClassifier)
    kinds["training, new"] = training_kind(network, data, no_work, [None])
    kinds["training, over a run"] = training_kind(
        network, data, saving(made["classifier"]), [made["classifier"]]
    )
    return kinds


def saving(estimator: Estimator[Any]) -> Callable[[Path], object]:
    return lambda folder: estimator.save(folder, overwrite=True)


def evaluation_kind(detector: Estimator[Any], data: TinyData) -> Kind:
    def evaluate(folder: Path) -> None:
        evaluate_run(detector, folder, data.boxes, "train")

    def check(folder: Path) -> None:
        whole([detector], data)(folder)
        for name in ("metrics.json", "report.html"):
            if (folder / name).exists():
                text = (folder / name).read_text(encoding="utf-8")
                assert json.loads(text)["AP50"] is not None if name == "metrics.json" else "</html>" in text

    def complete(folder: Path) -> None:
        assert {"metrics.json", "report.html", "log.jsonl"} <= {path.name for path in folder.iterdir()}

    return Kind(saving(detector), evaluate, check, complete)


def prediction_kind(detector: Estimator[Any], data: TinyData) -> Kind:
    def predict(folder: Path) -> None:
        out = folder.with_name(folder.name + "-out")
        images = sorted(str(path) for path in (data.boxes / "JPEGImages").iterdir())
        assert shell(["predict", str(folder), *images, "--out", str(out), "--device", "cpu"]) == 0

    def check(folder: Path) -> None:
        whole([detector], data)(folder)
        out = folder.with_name(folder.name + "-out")
        for path in out.glob("[!.]*"):
            if path.suffix == ".json":
                json.loads(path.read_text(encoding="utf-8"))
            elif path.suffix == ".jpg":
                sppnet.load(folder, "cpu").predict(path)

    def complete(folder: Path) -> None:
        out = folder.with_name(folder.name + "-out")
        images = {str(path) for path in (data.boxes / "JPEGImages").iterdir()}
        lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text("utf-8").splitlines()]
        assert sorted(line["path"] for line in lines) == sorted(images)
        document = json.loads((out / "predictions.json").read_bytes())
        assert {one["path"] for one in document["images"]} == images
        assert not [path for path in out.iterdir() if path.suffix in (".part", ".lock")]

    return Kind(saving(detector), predict, check, complete)


def training_kind(
    network: NetworkClassifier, data: TinyData, prepare: Callable[[Path], object], before: list[Any]
) -> Kind:
    """Three epochs with checkpoints inside them; the run of the last is what an uninterrupted one leaves."""
    train = replace(network.train, epochs=3, batch=2, checkpoint_steps=1)
    ours = NetworkClassifier(network.backbone, device="cpu", network=network.network, train=train)
    states: list[Any] = list(before)
    for epochs in (1, 2, 3):
        part = ours.clone().set_params(train=replace(train, epochs=epochs)).fit(data.classes, quiet=True)
        states.append(part.set_params(train=train))
    last = states[-1]

    def fit(folder: Path) -> None:
        """Train; what was begun is gone on with."""
        started = (folder / "checkpoint.safetensors").exists()
        ours.clone().fit(data.classes, folder=folder, resume=started, overwrite=not started, quiet=True)

    def check(folder: Path) -> None:
        whole(states, data)(folder)
        if (folder / "model.json").exists() and sppnet.load(folder, "cpu").kind == "network":
            found = sppnet.load(folder, "cpu")
            epochs = found.summary_["epochs"]
            assert epochs in (1, 2, 3)
            if epochs == 3 and (folder / "checkpoint.safetensors").exists():
                load_file(folder / "checkpoint.safetensors")
                wanted = last.network_.state_dict()
                assert all(torch.equal(value, wanted[n]) for n, value in found.network_.state_dict().items())

    return Kind(prepare, fit, check, whole([last], data))


def kill_before_call(number: int) -> None:
    """Make this process kill itself before its ``number``-th call of one of `CALLS`."""
    left = number

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return run

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))


def count_calls(save: Callable[[Path], object], folder: Path) -> int:
    """How many of `CALLS` a save makes."""
    count = 0
    plain = {name: getattr(os, name) for name in CALLS}

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            return call(*args, **kwargs)

        return run

    for name, call in plain.items():
        setattr(os, name, counted(call))
    try:
        quiet(save, folder)
    finally:
        for name, call in plain.items():
            setattr(os, name, call)
    return count


def quiet(work: Callable[[Path], object], folder: Path) -> None:
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        work(folder)


def killed_save(kind: Kind, folder: Path, draw: random.Random, calls: int, seconds: float) -> int:
    """Save in a child and kill it; its status."""
    at_call = draw.random() < 0.5
    call, delay = draw.randrange(calls), draw.uniform(0, seconds)
    child = os.fork()
    if child == 0:
        try:
            if at_call:
                kill_before_call(call)
            quiet(kind.save, folder)
        except BaseException:
            traceback.print_exc()
            os._exit(3)
        os._exit(0)
    if not at_call:
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def kill_once(kind: Kind, folder: Path, draw: random.Random, calls: int, seconds: float) -> str:
    """Kill one save in ``folder``, check what is left, save again; whether the child died in time.

    In a third of the cases the save after the kill is killed, too.
    """
    status = 0
    for _ in range(draw.choice((1, 1, 2))):
        status = killed_save(kind, folder, draw, calls, seconds)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status):
            return "the save failed"
        try:
            kind.check(folder)
        except (AssertionError, UserError) as error:
            return f"lost: {error}"
    try:
        quiet(kind.save, folder)
    except UserError as error:
        return f"blocked: {error}"
    try:
        kind.check(folder)
        kind.complete(folder)
        left = [path.name for path in folder.iterdir() if path.name.startswith(".")]
        assert not left, f"left over: {left}"
    except (AssertionError, UserError) as error:
        return f"lost after saving again: {error}"
    return "killed" if os.WIFSIGNALED(status) else "finished before the kill"


def run_kind(kind: Kind, place: Path, count: int, seed: int) -> Counter[str]:
    """Outcomes of one kind of save, until ``count`` were killed in time; at most four times as many."""
    trial = place / "trial"
    kind.prepare(trial)
    began = time.monotonic()
    calls = count_calls(kind.save, trial)
    seconds = time.monotonic() - began
    outcomes: Counter[str] = Counter()
    for number in range(4 * count):
        if outcomes["killed"] >= count:
            break
        folder = place / str(number)
        kind.prepare(folder)
        outcomes[kill_once(kind, folder, random.Random(f"{seed} {number}"), calls, seconds)] += 1
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=None)
    flags = parser.parse_args()
    torch.set_num_threads(1)
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        data = make_data(place / "data")
        kinds = output_kinds(data)
        if not flags.kinds or not all(any(part in name for name in kinds) for part in flags.kinds):
            kinds |= {name: partial(Kind, **vars(kind)) for name, kind in estimator_kinds(data).items()}
        for name, make in kinds.items():
            if flags.kinds and not any(part in name for part in flags.kinds):
                continue
            with tempfile.TemporaryDirectory() as below:
                outcomes = run_kind(make(), Path(below), flags.count, flags.seed)
            print(f"{name}: {dict(outcomes)}", flush=True)
            bad += sum(
                n for said, n in outcomes.items() if said not in ("killed", "finished before the kill")
            )
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
