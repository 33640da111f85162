"""Save the best weights of a training run, in memory and in its folder, after every epoch."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from sppnet.classify.checkpoint import NAME
from sppnet.classify.reports import EpochReport
from sppnet.errors import UserError
from sppnet.files import remove, write_text
from sppnet.runs import append_log, describe_run, load_run

_BOARD = "tensorboard"


class Trained(Protocol):
    """An estimator in training."""

    network_: Any
    summary_: dict[str, Any]
    training_: str

    def write_run(self, folder: Path, *, keep_log: bool) -> None:
        """Write the run with the current weights."""
        ...


def is_main_process() -> bool:
    """Return whether this process writes: the only process, or the first of several."""
    return os.environ.get("RANK", "0") == "0"


class BestWeights:
    """The weights of the best epoch: the lowest held-out error, or the last epoch without held-out images.

    The run is first written when the first epoch ends. A training that fails before leaves no untrained run,
    and an existing run stays.

    Args:
        estimator: the estimator in training.
        folder: the run folder, or None.
        images: number of training images.
        resumed: start from the weights of the run.
    """

    def __init__(self, estimator: Trained, folder: Path | None, images: int, *, resumed: bool) -> None:
        self.estimator = estimator
        self.folder = folder if is_main_process() else None
        self.tensors: dict[str, Tensor] = {}
        self.written = False
        estimator.summary_ = {"images": images, "epochs": 0}
        if resumed and folder is not None:
            self._resume(folder)

    def _resume(self, folder: Path) -> None:
        """Read the weights and the summary of the run; it does not exist before the first epoch has ended."""
        try:
            run = load_run(folder, "network")
        except UserError:
            # Killed in the first epoch; later, the run is written before the checkpoint.
            return
        if run.model.get("training") != self.estimator.training_:
            return  # a run that this training replaces
        self.written = True
        names = self.estimator.network_.state_dict().keys()
        self.tensors = {name: value for name, value in run.tensors.items() if name in names}
        summary = run.model.get("summary")
        if isinstance(summary, dict):
            self.estimator.summary_ |= {
                name: value for name, value in summary.items() if name in ("epochs", "kept_epoch", "best")
            }

    def update(self, network: nn.Module, report: EpochReport) -> None:
        """Save the weights of a finished epoch if it is the best, and update the run."""
        summary = self.estimator.summary_
        summary["epochs"] = report.epoch
        if report.best:
            self.tensors = {name: t.detach().cpu().clone() for name, t in network.state_dict().items()}
            summary["kept_epoch"] = report.epoch
            summary["best"] = report.loss if report.held_error is None else report.held_error
        if self.folder is None:
            return
        if not self.written:
            remove(self.folder / NAME)  # of a replaced run
            _clear_board(self.folder)
        if report.best:
            self.estimator.write_run(self.folder, keep_log=self.written)
            self.written = True
        else:
            describe_run(self.folder, {"summary": summary})
        _trim_log(self.folder, report.epoch)
        append_log(self.folder, {"verb": "train", **asdict(report)})
        _write_board(self.folder, report)


def _trim_log(folder: Path, epoch: int) -> None:
    """Remove the log lines of epochs that a resumed run trains again."""
    path = folder / "log.jsonl"
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8", errors="backslashreplace").splitlines(keepends=True)
    remaining = [line for line in lines if not _is_of_epoch(line, epoch)]
    if len(remaining) < len(lines):
        write_text(path, "".join(remaining))


def _is_of_epoch(line: str, epoch: int) -> bool:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return False  # incomplete, from a killed writer; other lines stay as they are
    if not isinstance(record, dict) or record.get("verb") != "train":
        return False
    number = record.get("epoch")
    return isinstance(number, int) and number >= epoch


def _clear_board(folder: Path) -> None:
    for path in (folder / _BOARD).glob("events.out.tfevents.*"):
        remove(path)


def _write_board(folder: Path, report: EpochReport) -> None:
    """Add one point to each TensorBoard curve."""
    from torch.utils.tensorboard.writer import SummaryWriter

    try:
        with SummaryWriter(str(folder / _BOARD), filename_suffix=f".{report.epoch}") as board:
            for name in ("size", "rate", "loss", "error", "held_error"):
                value = getattr(report, name)
                if value is not None:
                    board.add_scalar(name, value, report.epoch)
    except OSError as error:
        raise UserError(folder / _BOARD, "a folder that can be written", error.strerror or error) from error
