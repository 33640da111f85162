"""The training loop: epochs of steps, a learning rate that falls at plateaus, checkpoints, a log.

Everything random in a step is drawn from the seed, the epoch, the step and the process, so that a run that
was killed goes on from its checkpoint exactly as if nothing had happened.
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
from sppnet.classify.samples import Sample, TrainImages, collate, epoch_batches, native_shapes
from sppnet.classify.train_options import TrainOptions
from sppnet.errors import MissingExtraError, UserError
from sppnet.features.network import pick_device
from sppnet.progress import track

if TYPE_CHECKING:
    from accelerate import Accelerator

_KEPT_BYTES = 4 * 2**30


@dataclass(frozen=True)
class EpochReport:
    """What an epoch ends with.

    Attributes:
        epoch: how many are done.
        size: side of its training images; 0 for their own shapes.
        rate: its learning rate.
        loss: mean cross-entropy of the training images, as they were met.
        error: share of them taken for another class.
        held_error: of the held-out images; None without.
        best: whether its weights are kept: the held-out error was never lower, or nothing is held out.
        seconds: of training so far.
        left: seconds that the epochs left will take.
    """

    epoch: int
    size: int
    rate: float
    loss: float
    error: float
    held_error: float | None
    best: bool
    seconds: float
    left: float


@dataclass(frozen=True)
class TrainJob:
    """What one run trains on, and where it keeps itself.

    Attributes:
        samples: what to learn from.
        options: how.
        seed: of everything random.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        folder: for checkpoints; none are kept when None.
        resume: go on from the folder's checkpoint.
        training: what checkpoints say about the run; needed with a folder.
        quiet: say nothing.
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
    """Train a network in place.

    Args:
        network: its weights are changed and its place may be.
        job: data and options.
        validate: the error on held-out images, after every epoch, in the main process.
        report: called after every epoch, in every process, before the epoch's checkpoint is written.

    Returns:
        where training ended.

    Raises:
        UserError: options, samples or a checkpoint at fault.
        MissingExtraError: without accelerate.
    """
    job.options.check()
    job.options.check_for(network.any_size)
    place = _accelerator(job)
    devices = [place.device] if place.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        return _Run(network, job, place).go(validate, report)


def check_extras(*, board: bool) -> None:
    """Check that the packages of the extra ``train`` are there, before any work.

    Raises:
        MissingExtraError: without accelerate, or without tensorboard where ``board`` wants it.
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

    def __init__(self, network: PyramidNetwork, job: TrainJob, place: Accelerator) -> None:
        self.network = network.to(place.device)
        self.network.backbone.to(memory_format=torch.channels_last)  # faster on CPUs and tensor cores
        self.job = job
        self.place = place
        self.shapes = native_shapes(job.samples, job.options)
        small = job.options.workers == 0 and _size_of_all(job) < _KEPT_BYTES
        self.kept: dict[Path, Tensor] | None = {} if small else None
        optimiser = torch.optim.SGD(_groups(self.network, job.options), momentum=job.options.momentum)
        self.position = Position()
        path = None if job.folder is None else job.folder / NAME
        if job.resume:
            if path is None:
                raise UserError("resume", "a folder with a checkpoint", "none")
            self.position = read_checkpoint(path, self.network, optimiser)
        self.path = path
        self.plain = optimiser
        self.model, self.optimiser = place.prepare(self.network, optimiser)
        if self.position.scaler and place.scaler is not None:
            place.scaler.load_state_dict(self.position.scaler)

    def go(
        self,
        validate: Callable[[PyramidNetwork], float] | None,
        report: Callable[[PyramidNetwork, EpochReport], None] | None,
    ) -> Position:
        options, position = self.job.options, self.position
        while position.epoch < options.epochs:
            began, rate = time.monotonic(), position.plateau.rate(options)
            for group in self.plain.param_groups:
                group["lr"] = rate * group["times"]
            self.network.train()
            self._epoch()
            self.network.eval()
            loss, error = position.loss / position.seen, position.wrong / position.seen
            held = self._held(validate)
            value = loss if held is None else held
            best = held is None or held < position.plateau.best
            spent = time.monotonic() - began
            position.seconds += spent
            position.plateau = position.plateau.after(value, position.epoch, options)
            position.epoch, position.step = position.epoch + 1, 0
            position.kept = position.epoch if best else position.kept
            position.loss, position.wrong, position.seen = 0.0, 0, 0
            size = 0 if options.native else options.size(position.epoch - 1, self.job.seed)
            left = position.seconds / position.epoch * (options.epochs - position.epoch)
            said = EpochReport(position.epoch, size, rate, loss, error, held, best, position.seconds, left)
            if report is not None:
                report(self.network, said)
            _say(said, options, quiet=self.job.quiet or not self.place.is_main_process)
            self._keep()
        return position

    def _epoch(self) -> None:
        """The steps of the next epoch that are left, added up in the position."""
        job, position = self.job, self.position
        batches = epoch_batches(len(job.samples), self.shapes, job.options.batch, position.epoch, job.seed)
        count, rank = self.place.num_processes, self.place.process_index
        ours = [batch[rank : len(batch) - len(batch) % count : count] for batch in batches]
        ours = [batch for batch in ours if batch]
        if not ours:
            raise UserError("samples", f"at least {count}, one a process", len(job.samples))
        dataset = TrainImages(job.samples, job.options, position.epoch, job.seed, self.kept)
        loader = DataLoader(
            dataset,
            batch_sampler=ours[position.step :],
            num_workers=job.options.workers,
            collate_fn=collate,
            pin_memory=self.place.device.type == "cuda",
        )
        title = f"Epoch {position.epoch + 1} of {job.options.epochs}"
        quiet = job.quiet or not self.place.is_main_process or not sys.stderr.isatty()
        for batch, labels in track(loader, title, len(ours) - position.step, quiet=quiet):
            torch.manual_seed(_mixed(job.seed, position.epoch, position.step, rank))
            loss, wrong, seen = self._step(batch, labels)
            position.step += 1
            position.loss += loss
            position.wrong += wrong
            position.seen += seen
            every = job.options.checkpoint_steps
            if every and position.step % every == 0 and position.step < len(ours):
                self._keep()

    def _step(self, images: Tensor | list[Tensor], labels: Tensor) -> tuple[float, int, int]:
        """One update; the sum of the losses, wrong answers and images, of all processes."""
        device = self.place.device
        placed = images.to(device) if isinstance(images, Tensor) else [i.to(device) for i in images]
        labels = labels.to(device)
        scores: Tensor = self.model(placed)
        loss = nn.functional.cross_entropy(scores.float(), labels)
        self.optimiser.zero_grad()
        self.place.backward(loss)
        self.optimiser.step()
        wrong = (scores.argmax(1) != labels).sum()
        count = len(labels)
        sums = torch.stack([loss.detach().float() * count, wrong.float(), loss.new_tensor(count).float()])
        added, missed, seen = self._sum(sums).tolist()
        if not math.isfinite(added):
            wanted = "a finite loss"
            raise UserError("train.rate", wanted, f"{added} in epoch {self.position.epoch + 1}", "Lower it.")
        return added, int(missed), int(seen)

    def _held(self, validate: Callable[[PyramidNetwork], float] | None) -> float | None:
        """The held-out error, the same in every process."""
        if validate is None:
            return None
        value = validate(self.network) if self.place.is_main_process else 0.0
        told = torch.tensor(value, dtype=torch.float64 if self.place.device.type != "mps" else torch.float32)
        return float(self._sum(told.to(self.place.device)))

    def _sum(self, value: Tensor) -> Tensor:
        total = self.place.reduce(value, "sum") if self.place.num_processes > 1 else value
        assert isinstance(total, Tensor)
        return total

    def _keep(self) -> None:
        if self.path is not None and self.place.is_main_process:
            if self.place.scaler is not None:
                self.position.scaler = dict(self.place.scaler.state_dict())
            assert self.job.training is not None
            write_checkpoint(self.path, self.network, self.plain, self.position, self.job.training)
        self.place.wait_for_everyone()


def _groups(network: nn.Module, options: TrainOptions) -> list[dict[str, Any]]:
    """Weights, and biases at twice the rate without decay; what normalises counts as bias."""
    wanted = [p for p in network.parameters() if p.requires_grad]
    weights = [p for p in wanted if p.ndim > 1]
    biases = [p for p in wanted if p.ndim <= 1]
    return [
        {"params": weights, "lr": options.rate, "times": 1.0, "weight_decay": options.decay},
        {"params": biases, "lr": 2 * options.rate, "times": 2.0, "weight_decay": 0.0},
    ]


def _size_of_all(job: TrainJob) -> float:
    """About how many bytes the images take at the short side; four thirds as long as high."""
    images = len({sample.path for sample in job.samples})
    return images * 4.0 * job.options.short_side**2


def _mixed(*numbers: int) -> int:
    """One seed of several numbers, the same in every process and version."""
    mixed = 0
    for number in numbers:
        mixed = (mixed * 1_000_003 + number + 1) % 2**63
    return mixed


def _say(said: EpochReport, options: TrainOptions, *, quiet: bool) -> None:
    if quiet:
        return
    held = "" if said.held_error is None else f", held out {100 * said.held_error:.1f}%"
    print(
        f"Epoch {said.epoch} of {options.epochs}: loss {said.loss:.3f}, error {100 * said.error:.1f}%{held}, "
        f"{said.seconds:.0f} s, {said.left:.0f} s left",
        file=sys.stderr,
    )
