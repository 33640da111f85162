"""The training loop: epochs of steps, learning rate schedule, checkpoints and reports.

The random numbers of a step are drawn from the seed, the epoch, the step and the process, so that a killed
run resumes from its checkpoint with exactly the same results.
"""

from __future__ import annotations

import importlib.util
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from sppnet.classify.checkpoint import NAME, Position, Training, read_checkpoint, write_checkpoint
from sppnet.classify.network import PyramidNetwork
from sppnet.classify.reports import EpochReport, print_report
from sppnet.classify.samples import Sample, TrainImages, collate, epoch_batches, native_shapes
from sppnet.classify.train_options import TrainOptions
from sppnet.errors import MissingExtraError, UserError
from sppnet.features.network import pick_device
from sppnet.progress import track

if TYPE_CHECKING:
    from accelerate import Accelerator

_CACHED_BYTES = 4 * 2**30
"""Training images of at most this size are cached in memory."""


@dataclass(frozen=True)
class TrainJob:
    """Samples, options and folder of a training run.

    Attributes:
        samples: the training samples.
        options: the training options.
        seed: seed of all random numbers.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        folder: folder of the checkpoint; None writes none.
        resume: start from the checkpoint in the folder.
        training: the identity of the run in checkpoints; required with a folder.
        quiet: print nothing.
    """

    samples: Sequence[Sample]
    options: TrainOptions
    seed: int = 0
    device: str = "auto"
    folder: Path | None = None
    resume: bool = False
    training: Training | None = None
    quiet: bool = False


def train_network(
    network: PyramidNetwork,
    job: TrainJob,
    validate: Callable[[PyramidNetwork], float] | None = None,
    report: Callable[[PyramidNetwork, EpochReport], None] | None = None,
) -> Position:
    """Train a network in accelerator.

    Args:
        network: the network; its weights and its device change.
        job: samples and options.
        validate: returns the error on held-out images; called after every epoch in the main process.
        report: called after every epoch in every process, before the checkpoint is written.

    Returns:
        The final state of the run.

    Raises:
        UserError: the options, the samples or the checkpoint are invalid.
        MissingExtraError: accelerate is not installed.
    """
    job.options.check()
    job.options.check_for(network.any_size)
    accelerator = _accelerator(job)
    devices = [accelerator.device] if accelerator.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        return _Run(network, job, accelerator).run(validate, report)


def check_extras(*, board: bool) -> None:
    """Check that the packages of the extra ``train`` are installed.

    Args:
        board: whether tensorboard is needed.

    Raises:
        MissingExtraError: accelerate or, with ``board``, tensorboard is not installed.
    """
    for name in ("accelerate", "tensorboard") if board else ("accelerate",):
        if importlib.util.find_spec(name) is None:
            raise MissingExtraError(name, "train", "training")


def _accelerator(job: TrainJob) -> Accelerator:
    check_extras(board=False)
    from accelerate import Accelerator

    device = pick_device(job.device)
    return Accelerator(cpu=device.type == "cpu", mixed_precision=job.options.precision)


class _Run:
    """One training run in this process: network, optimiser and position."""

    def __init__(self, network: PyramidNetwork, job: TrainJob, accelerator: Accelerator) -> None:
        self.network = network.to(accelerator.device)
        self.network.backbone.to(memory_format=torch.channels_last)  # faster on CPUs and tensor cores
        self.job = job
        self.accelerator = accelerator
        self.shapes = native_shapes(job.samples, job.options)
        small = job.options.workers == 0 and _total_bytes(job) < _CACHED_BYTES
        self.cache: dict[Path, Tensor] | None = {} if small else None
        optimiser = torch.optim.SGD(_groups(self.network, job.options), momentum=job.options.momentum)
        self.position = Position()
        path = None if job.folder is None else job.folder / NAME
        if job.resume:
            if path is None:
                raise UserError("resume", "a folder with a checkpoint", "none")
            self.position = read_checkpoint(path, self.network, optimiser)
        self.path = path
        self.plain = optimiser
        self.model, self.optimiser = accelerator.prepare(self.network, optimiser)
        if self.position.scaler and accelerator.scaler is not None:
            accelerator.scaler.load_state_dict(self.position.scaler)

    def run(
        self,
        validate: Callable[[PyramidNetwork], float] | None,
        report: Callable[[PyramidNetwork, EpochReport], None] | None,
    ) -> Position:
        options, position = self.job.options, self.position
        while position.epoch < options.epochs:
            start, rate = time.monotonic(), position.plateau.rate(options)
            for group in self.plain.param_groups:
                group["lr"] = rate * group["times"]
            self.network.train()
            self._epoch()
            self.network.eval()
            loss, error = position.loss / position.seen, position.wrong / position.seen
            held = self._held_out_error(validate)
            value = loss if held is None else held
            best = held is None or held < position.plateau.best
            seconds = time.monotonic() - start
            position.seconds += seconds
            position.plateau = position.plateau.after(value, position.epoch, options)
            position.epoch, position.step = position.epoch + 1, 0
            position.kept = position.epoch if best else position.kept
            position.loss, position.wrong, position.seen = 0.0, 0, 0
            size = 0 if options.native else options.size(position.epoch - 1, self.job.seed)
            left = position.seconds / position.epoch * (options.epochs - position.epoch)
            result = EpochReport(position.epoch, size, rate, loss, error, held, best, position.seconds, left)
            if report is not None:
                report(self.network, result)
            print_report(result, options, quiet=self.job.quiet or not self.accelerator.is_main_process)
            self._write_checkpoint()
        return position

    def _epoch(self) -> None:
        """Train the remaining steps of the next epoch and add up their results in the position."""
        job, position = self.job, self.position
        batches = epoch_batches(len(job.samples), self.shapes, job.options.batch, position.epoch, job.seed)
        count, rank = self.accelerator.num_processes, self.accelerator.process_index
        local = [batch[rank : len(batch) - len(batch) % count : count] for batch in batches]
        local = [batch for batch in local if batch]
        if not local:
            raise UserError("samples", f"at least {count} samples, one per process", len(job.samples))
        dataset = TrainImages(job.samples, job.options, position.epoch, job.seed, self.cache)
        loader = DataLoader(
            dataset,
            batch_sampler=local[position.step :],
            num_workers=job.options.workers,
            collate_fn=collate,
            pin_memory=self.accelerator.device.type == "cuda",
        )
        title = f"Epoch {position.epoch + 1} of {job.options.epochs}"
        quiet = job.quiet or not self.accelerator.is_main_process or not sys.stderr.isatty()
        for batch, labels in track(loader, title, len(local) - position.step, quiet=quiet):
            torch.manual_seed(_combined_seed(job.seed, position.epoch, position.step, rank))
            loss, wrong, seen = self._step(batch, labels)
            position.step += 1
            position.loss += loss
            position.wrong += wrong
            position.seen += seen
            every = job.options.checkpoint_steps
            if every and position.step % every == 0 and position.step < len(local):
                self._write_checkpoint()

    def _step(self, images: Tensor | list[Tensor], labels: Tensor) -> tuple[float, int, int]:
        """Update the weights; return the sum of losses, wrong images and images over all processes."""
        device = self.accelerator.device
        moved = images.to(device) if isinstance(images, Tensor) else [i.to(device) for i in images]
        labels = labels.to(device)
        scores: Tensor = self.model(moved)
        loss = nn.functional.cross_entropy(scores.float(), labels)
        self.optimiser.zero_grad()
        self.accelerator.backward(loss)
        self.optimiser.step()
        wrong = (scores.argmax(1) != labels).sum()
        count = len(labels)
        sums = torch.stack([loss.detach().float() * count, wrong.float(), loss.new_tensor(count).float()])
        added, missed, seen = self._sum(sums).tolist()
        if not math.isfinite(added):
            expected = "a finite loss"
            raise UserError(
                "train.rate", expected, f"a loss of {added} in epoch {self.position.epoch + 1}", "Lower it."
            )
        return added, int(missed), int(seen)

    def _held_out_error(self, validate: Callable[[PyramidNetwork], float] | None) -> float | None:
        """Return the held-out error, the same in every process."""
        if validate is None:
            return None
        value = validate(self.network) if self.accelerator.is_main_process else 0.0
        shared = torch.tensor(
            value, dtype=torch.float64 if self.accelerator.device.type != "mps" else torch.float32
        )
        return float(self._sum(shared.to(self.accelerator.device)))

    def _sum(self, value: Tensor) -> Tensor:
        total = self.accelerator.reduce(value, "sum") if self.accelerator.num_processes > 1 else value
        assert isinstance(total, Tensor)
        return total

    def _write_checkpoint(self) -> None:
        if self.path is not None and self.accelerator.is_main_process:
            if self.accelerator.scaler is not None:
                self.position.scaler = dict(self.accelerator.scaler.state_dict())
            assert self.job.training is not None
            write_checkpoint(self.path, self.network, self.plain, self.position, self.job.training)
        self.accelerator.wait_for_everyone()


def _groups(network: nn.Module, options: TrainOptions) -> list[dict[str, Any]]:
    """Return parameter groups: weights, and biases and normalisation at twice the rate without decay."""
    trainable = [p for p in network.parameters() if p.requires_grad]
    weights = [p for p in trainable if p.ndim > 1]
    biases = [p for p in trainable if p.ndim <= 1]
    return [
        {"params": weights, "lr": options.rate, "times": 1.0, "weight_decay": options.decay},
        {"params": biases, "lr": 2 * options.rate, "times": 2.0, "weight_decay": 0.0},
    ]


def _total_bytes(job: TrainJob) -> float:
    """Estimate the bytes of all images at the short side, for an aspect ratio of 4 to 3."""
    images = len({sample.path for sample in job.samples})
    return images * 4.0 * job.options.short_side**2


def _combined_seed(*numbers: int) -> int:
    """Combine numbers into one seed, the same in every process and version."""
    seed = 0
    for number in numbers:
        seed = (seed * 1_000_003 + number + 1) % 2**63
    return seed
