"""Options of a training run of the builtin network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Recipe:
    """Options of a training run; they are saved in the checkpoint.

    Attributes:
        data: a folder of images. Of VOC folders, only the train list is used. Folders named ``test`` are
            skipped.
        out: file of the weights (float16 safetensors); checkpoint and log are in the same folder.
        teacher: file of EfficientNet-Lite2 with the tensor names of timm; None to train on labels only.
        labels: weight of the classification loss; without a teacher it is the only loss.
        exclude: glob patterns, relative to ``data``, of images to skip.
        minutes: duration of the run, including the time before it was resumed.
        steps: number of steps; 0 to limit the run by ``minutes``.
        resume: continue from the checkpoint. The learning rate follows the given length of the run: it
            increases if the run is made longer.
        start: checkpoint of another run, of which the network and its average are the initial weights; the
            run may use labels even if the other did not. Or folded weights of any version of the network,
            whose heads are not used.
        batch: number of crops of 128x128 per step; batches of larger crops are smaller.
        rate: maximum learning rate of the kernels, which are trained by orthogonalised momentum.
        rate_rest: maximum learning rate of biases, normalisation and class head, which are trained by Adam.
        repeats: number of steps on each batch of crops; the teacher runs once per batch.
        chunk: number of batches that are created, then used ``repeats`` times in random order.
        single_size: use crops of 128x128 only, the baseline of multi-size training.
        every: number of steps between checkpoints.
        seed: seed of all random numbers.
        device: device of the training; ``auto`` selects a GPU if available.
    """

    data: Path
    out: Path
    teacher: Path | None = None
    labels: float = 0.0
    exclude: tuple[str, ...] = ()
    minutes: float = 60.0
    steps: int = 0
    resume: bool = False
    start: Path | None = None
    batch: int = 32
    rate: float = 0.05
    rate_rest: float = 2e-3
    repeats: int = 3
    chunk: int = 48
    single_size: bool = False
    every: int = 200
    seed: int = 0
    device: str = "auto"
