"""One cold fit of a detector in a process of its own: ``python -m sppnet.benchmark.one_fit JSON``."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class OneFit:
    """What to fit and to measure on.

    Attributes:
        data: a data set with boxes.
        backbone: name of the network.
        weights: its local weights.
        images: so many of the training images, drawn at random; 0 for all.
        repeat: every image this many times, to see how time and memory grow.
        seed: of the draw and of fitting.
        evaluate: whether to measure on the images for validation.
        run: a folder to keep the detector in.
    """

    data: str
    backbone: str
    weights: str | None = None
    images: int = 0
    repeat: int = 1
    seed: int = 0
    evaluate: bool = True
    run: str | None = None


def fit_once(task: OneFit) -> dict[str, Any]:
    """Carry out the task in a fresh process; its answer is `measure`'s."""
    words = [sys.executable, "-m", "sppnet.benchmark.one_fit", json.dumps(asdict(task))]
    said = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(said.stdout)


def measure(task: OneFit) -> dict[str, Any]:
    """Fit and evaluate.

    Returns:
        ``"start_s"`` (imports, the kernels loaded or compiled), ``"fit_s"`` (from reading the annotations
        to the last head), ``"seconds"`` by stage, counts, ``"peak_memory_mb"`` of fitting, ``"AP50"``, ...
    """
    start = time.perf_counter()
    import torch

    from sppnet.data import read_detection
    from sppnet.detect import Detector
    from sppnet.ops import region_pyramid_pool, region_pyramid_scores
    from sppnet.ops.boxes import nms
    from sppnet.ops.linear import row_products

    maps, some = torch.zeros(1, 32, 4, 4).bfloat16(), [torch.tensor([[0, 0, 4, 4]])]
    region_pyramid_scores(maps, some, torch.zeros(1, 32 * 14), None, (3, 2, 1))
    for dtype in (torch.bfloat16, torch.float32):
        region_pyramid_pool(maps.to(dtype), some, (3, 2, 1))
    region_pyramid_pool(maps.float(), some, (6,), "mean")
    row_products(torch.zeros(1, 16), torch.zeros(1, 16))
    nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    started = time.perf_counter()
    dataset = read_detection(task.data, None, None)
    if task.images:
        draw = torch.Generator().manual_seed(task.seed)
        chosen = sorted(torch.randperm(len(dataset), generator=draw)[: task.images].tolist())
        dataset = replace(dataset, items=tuple(dataset.items[i] for i in chosen))
    dataset = replace(dataset, items=dataset.items * task.repeat)
    detector = Detector(task.backbone, task.weights, seed=task.seed).fit(dataset, quiet=True)
    answer: dict[str, Any] = {
        "start_s": started - start,
        "fit_s": time.perf_counter() - started,
        **detector.summary_,
    }
    if task.run:
        detector.save(Path(task.run), overwrite=True)
    if task.evaluate:
        metrics = detector.evaluate(task.data, quiet=True)
        answer |= {name: metrics[name] for name in ("AP50", "AP75", "AP", "per_class")}
    return answer


if __name__ == "__main__":
    json.dump(measure(OneFit(**json.loads(sys.argv[1]))), sys.stdout)
