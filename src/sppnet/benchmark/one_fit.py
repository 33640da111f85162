"""One fit of a detector in a new process: ``python -m sppnet.benchmark.one_fit JSON``."""

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
    """Options of one fit.

    Attributes:
        data: a detection data set.
        backbone: name of the network.
        weights: file of its weights, if any.
        images: number of random training images; 0 for all.
        repeat: number of copies of every image, to measure the growth of time and memory.
        seed: seed of the selection of images and of the fit.
        evaluate: whether to evaluate on the validation images.
        run: run folder of the detector, if it is saved.
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
    """Call `measure` in a new process and return its result."""
    command = [sys.executable, "-m", "sppnet.benchmark.one_fit", json.dumps(asdict(task))]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(result.stdout)


def measure(task: OneFit) -> dict[str, Any]:
    """Fit and evaluate a detector.

    Returns:
        ``"start_s"`` (imports and loading or compilation of kernels), ``"fit_s"`` (from reading annotations
        on), ``"seconds"`` by stage, counts, ``"peak_memory_mb"`` of the fit, ``"AP50"``, ...
    """
    start = time.perf_counter()
    import torch

    from sppnet.data import read_detection
    from sppnet.detect import Detector
    from sppnet.ops import region_pyramid_pool, region_pyramid_scores
    from sppnet.ops.boxes import nms
    from sppnet.ops.linear import row_products

    maps, regions = torch.zeros(1, 32, 4, 4).bfloat16(), [torch.tensor([[0, 0, 4, 4]])]
    region_pyramid_scores(maps, regions, torch.zeros(1, 32 * 14), None, (3, 2, 1))
    for dtype in (torch.bfloat16, torch.float32):
        region_pyramid_pool(maps.to(dtype), regions, (3, 2, 1))
    region_pyramid_pool(maps.float(), regions, (6,), "mean")
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
    result: dict[str, Any] = {
        "start_s": started - start,
        "fit_s": time.perf_counter() - started,
        **detector.summary_,
    }
    if task.run:
        detector.save(Path(task.run), overwrite=True)
    if task.evaluate:
        metrics = detector.evaluate(task.data, quiet=True)
        result |= {name: metrics[name] for name in ("AP50", "AP75", "AP", "per_class")}
    return result


if __name__ == "__main__":
    json.dump(measure(OneFit(**json.loads(sys.argv[1]))), sys.stdout)
