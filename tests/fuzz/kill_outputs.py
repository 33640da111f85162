"""Kinds of save that write no run: features, exports, converted weights, cached stages, videos, data sets."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_runs import BACKBONE, TinyData, make_estimators

import sppnet
from sppnet.backbones import installed_weights
from sppnet.backbones.installed_weights import InstalledWeights
from sppnet.cli import main as shell
from sppnet.data import read_detection, read_image, write_voc
from sppnet.data.video import VideoReader, VideoWriter
from sppnet.detect import Detector
from sppnet.export.targets import write_export
from sppnet.features.bulk import write_features
from sppnet.features.extractor import FeatureExtractor
from sppnet.features.store import StageStore
from sppnet.files import make_folder
from sppnet.recipes import demo_data


@dataclass(frozen=True)
class Kind:
    """One kind of save.

    Attributes:
        prepare: what is there before, in an empty folder.
        save: what the child is killed in, and what must work afterwards.
        check: raises unless what is in the folder is whole.
        complete: raises unless the folder holds all that ``save`` writes.
    """

    prepare: Callable[[Path], object]
    save: Callable[[Path], object]
    check: Callable[[Path], object]
    complete: Callable[[Path], object]


def no_work(_: Path) -> None:
    """Nothing is there before."""


def output_kinds(data: TinyData) -> dict[str, Callable[[], Kind]]:
    """What makes each kind, by its name."""
    return {
        "converted weights": weights_kind,
        "cached stages": stages_kind,
        "export": lambda: export_kind(data),
        "data set": lambda: data_kind(data),
        "features, new": lambda: features_kind(data, "f.npy", again=False),
        "features, over another file": lambda: features_kind(data, "f.npy", again=True),
        "features of boxes, Parquet": lambda: features_kind(data, "f.parquet", again=True),
        "predicted video": lambda: video_kind(data),
        "fit with a cache": lambda: cached_fit_kind(data),
        "demo": lambda: demo_kind(data),
    }


def contents(folder: Path) -> dict[str, bytes]:
    plain = (path for path in folder.iterdir() if path.is_file() and path.name[0] != ".")
    return {path.name: path.read_bytes() for path in plain}


def features_kind(data: TinyData, name: str, *, again: bool) -> Kind:
    """Features in parts after every image; ``again``: over the finished files of another extractor."""
    images = sorted(data.classes.rglob("*.png"))
    boxes = {path.name: torch.tensor([[0.0, 0, 20, 20], [4, 6, 30, 30]]) for path in images}
    table = boxes if name.endswith(".parquet") else None
    old, new = (FeatureExtractor(BACKBONE, levels=levels, device="cpu").fit() for levels in ((1,), (2, 1)))
    sets: dict[str, dict[str, bytes]] = {}

    def write(folder: Path, extractor: FeatureExtractor, *, overwrite: bool) -> None:
        write_features(
            extractor, images, folder / name, table, overwrite=overwrite, checkpoint_seconds=0, quiet=True
        )

    for key, extractor in (("old", old), ("new", new)):
        folder = make_folder(data.boxes.with_name(f"whole-{key}-{again}-{name}"))
        write(folder, extractor, overwrite=False)
        sets[key] = contents(folder)

    def check(folder: Path) -> None:
        if not (folder / f"{name}.job.json").exists():
            # Nothing is there yet, or the parts are.
            assert not (folder / name).exists() or (folder / f"{name}.parts").is_dir(), "files without a job"
            return
        assert contents(folder) in (sets["old"], sets["new"]), "files of two jobs"

    def complete(folder: Path) -> None:
        assert contents(folder) == sets["new"], "other files than without a kill"
        assert not (folder / f"{name}.parts").exists()

    prepare = functools.partial(write, extractor=old, overwrite=False) if again else make_folder
    return Kind(prepare, functools.partial(write, extractor=new, overwrite=again), check, complete)


def export_kind(data: TinyData) -> Kind:
    """The file of an export over that of another."""
    from sppnet.backbones import load_backbone
    from sppnet.export import export_features

    folder = make_folder(data.boxes.with_name("exports"))
    models = [
        export_features(load_backbone(BACKBONE), folder / f"{level}.onnx", (level,)).read_bytes()
        for level in (1, 2)
    ]

    def write(folder: Path, number: int) -> None:
        write_export(folder / "model.onnx", models[number])

    def check(folder: Path) -> None:
        assert (folder / "model.onnx").read_bytes() in models
        onnx.load(folder / "model.onnx")

    def complete(folder: Path) -> None:
        assert contents(folder) == {"model.onnx": models[1]}

    return Kind(functools.partial(write, number=0), functools.partial(write, number=1), check, complete)


def weights_kind() -> Kind:
    """Weights of an installed package, converted into the cache."""
    tensors = {f"layer{i}.weight": torch.randn(200, 100) for i in range(5)}
    found: dict[str, Any] = {}

    def source() -> InstalledWeights:
        return InstalledWeights("none", "none", "none", "", "w.safetensors", found.get("digest", ""), ())

    def save(folder: Path) -> None:
        with (
            patch.dict(os.environ, SPPNET_CACHE=str(folder)),
            patch.object(installed_weights, "_installed", lambda source, network: (Path("installed"), b"")),
            patch.object(installed_weights, "_load_checkpoint", lambda content, path: tensors),
        ):
            given, found["path"] = installed_weights.weights_of_package(source(), "network")
        assert all(torch.equal(given[name], value) for name, value in tensors.items())
        cached = folder / "w.safetensors"
        found.setdefault("digest", hashlib.sha256(cached.read_bytes()).hexdigest())

    def check(folder: Path) -> None:
        path = folder / "w.safetensors"
        assert not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() == found["digest"]

    def complete(folder: Path) -> None:
        assert load_file(folder / "w.safetensors").keys() == tensors.keys()
        for lock in folder.glob(".sppnet-*.lock"):
            lock.unlink()  # of a process that was killed after its last write; nobody writes here again

    return Kind(make_folder, save, check, complete)


def stages_kind() -> Kind:
    """Stages of fitting in a folder, found by the next fit."""

    def made(number: int) -> dict[str, torch.Tensor]:
        return {"values": torch.full((1000, 8), float(number)), "index": torch.arange(number)}

    def save(folder: Path) -> None:
        with StageStore(0, folder) as store:
            for number in range(1, 6):
                got = store.get("maps", f"key{number}", functools.partial(made, number))
                assert torch.equal(got["values"], made(number)["values"])

    def check(folder: Path) -> None:
        for path in folder.glob("maps/key*.safetensors"):
            load_file(path)

    def complete(folder: Path) -> None:
        assert len(list(folder.glob("maps/key*.safetensors"))) == 5

    return Kind(make_folder, save, check, complete)


def cached_fit_kind(data: TinyData) -> Kind:
    """``sppnet fit detect --cache``: the run after a kill is that of a fit without one."""
    flags = ["--backbone", BACKBONE, "--device", "cpu", "--short-side", "0", "--levels", "2", "1"]
    flags += ["--windows", "60", "--shapes", "2", "--mining-rounds", "1", "--rows", "200", "--iou-head", "0"]

    def save(folder: Path) -> None:
        cache = folder.with_name(folder.name + "-cache")
        words = ["fit", "detect", str(data.boxes), "--split", "train", "--out", str(folder), "--overwrite"]
        assert shell([*words, *flags, "--cache", str(cache)]) == 0

    whole = data.boxes.with_name("cached-fit")
    save(whole)
    expected = sppnet.load(whole, "cpu").predict(data.image, threshold=0.0).scores

    def complete(folder: Path) -> None:
        assert torch.allclose(sppnet.load(folder, "cpu").predict(data.image, threshold=0.0).scores, expected)

    def check(folder: Path) -> None:
        if (folder / "model.json").exists():
            complete(folder)

    return Kind(no_work, save, check, complete)


def video_kind(data: TinyData) -> Kind:
    """A video drawn by ``sppnet predict``, with a line per frame."""
    film = data.boxes.with_name("film.mp4")
    with VideoWriter(film, Fraction(10)) as writer:
        for shift in range(3):
            writer.write(np.roll(data.image, shift, axis=1))
    run = make_estimators(data)["classifier"].save(data.boxes.with_name("film-run"))

    def save(folder: Path) -> None:
        assert shell(["predict", str(run), str(film), "--out", str(folder), "--device", "cpu"]) == 0

    def check(folder: Path) -> None:
        if (folder / "film.mp4").exists():
            with VideoReader(folder / "film.mp4") as frames:
                assert len(list(frames)) == 3

    def complete(folder: Path) -> None:
        assert {"film.mp4", "film.jsonl", "predictions.json", "predictions.jsonl"} == set(contents(folder))
        assert len([json.loads(line) for line in (folder / "film.jsonl").read_text().splitlines()]) == 3
        (video,) = json.loads((folder / "predictions.json").read_bytes())["videos"]
        assert video["frames"] == 3
        left = [path.name for path in folder.iterdir() if path.suffix in (".part", ".lock")]
        assert not left, left
        (folder / ".sppnet-predictions.jsonl").unlink()

    return Kind(no_work, save, check, complete)


def data_kind(data: TinyData) -> Kind:
    """A data set in VOC layout; the list of its images comes last."""
    dataset = read_detection(data.boxes, "train")
    items = [(f"n{i}", read_pixels_of(item.path), item.truth) for i, item in enumerate(dataset.items)]

    def save(folder: Path) -> None:
        write_voc(folder, items, "train")

    def check(folder: Path) -> None:
        if (folder / "ImageSets" / "Main" / "train.txt").exists():
            complete(folder)
        for path in folder.rglob("*.jpg"):
            read_image(path)

    def complete(folder: Path) -> None:
        found = read_detection(folder, "train")
        assert len(found.items) == len(items)
        assert all(len(item.truth) == 1 for item in found.items)

    return Kind(no_work, save, check, complete)


def read_pixels_of(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def demo_kind(data: TinyData) -> Kind:
    """``sppnet demo`` with a small network and few images."""
    size = demo_data.DemoSize(train=3, test=1, class_train=1, class_test=1, new=1, class_new=1)
    detector = make_estimators(data)["detector"]
    write = functools.partial(demo_data.write_demo_data, size=size)

    def save(folder: Path) -> None:
        with (
            patch.object(demo_data, "write_demo_data", write),
            patch.object(sppnet.detect, "Detector", lambda seed, options: small_detector(detector, seed)),
            patch.object(sppnet.classify, "Classifier", lambda seed: small_classifier(seed)),
        ):
            assert shell(["demo", "--out", str(folder)]) == 0

    def check(folder: Path) -> None:
        for name in ("detector", "classifier"):
            if (folder / name / "model.json").exists():
                sppnet.load(folder / name, "cpu").predict(data.image)

    def complete(folder: Path) -> None:
        check(folder)
        assert json.loads((folder / "demo.json").read_bytes())["AP50"] is not None
        names = {path.name for path in folder.iterdir()}
        assert names == {"data", "detector", "classifier", "images", "report.html", "demo.json"}

    return Kind(no_work, save, check, complete)


def small_detector(like: Any, seed: int) -> Detector:
    return Detector(BACKBONE, device="cpu", options=like.options, seed=seed)


def small_classifier(seed: int) -> Any:
    from sppnet.classify.classifier import Classifier, ClassifierOptions

    return Classifier(BACKBONE, device="cpu", options=ClassifierOptions(levels=(2, 1)), seed=seed)
