"""The weights that a training run keeps, in memory and in its folder, epoch by epoch."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from sppnet.classify.checkpoint import NAME
from sppnet.classify.training import EpochReport
from sppnet.errors import UserError
from sppnet.files import remove, write_text
from sppnet.runs import append_log, describe_run, load_run

_BOARD = "tensorboard"


class Trained(Protocol):
    """What is trained: its network and summary, and how it becomes a run."""

    network_: Any
    summary_: dict[str, Any]
    training_: str

    def write_run(self, folder: Path, *, keep_log: bool) -> None:
        """Write the run with the present weights."""
        ...


def is_main_process() -> bool:
    """Whether this process writes: the only one, or the first of several that train together."""
    return os.environ.get("RANK", "0") == "0"


class KeptWeights:
    """The weights of the kept epoch: of the lowest held-out error, or the last where nothing is held out.

    The run's ``model.json`` is written when the first epoch ends: a training that fails before then leaves no
    untrained run, and an old run stays.

    Args:
        owner: what is trained.
        folder: the run, or None.
        images: how many images are learned from.
        resumed: go on with the weights that the run keeps.

    Raises:
        UserError: resumed, and the run's weights are of another training.
    """

    def __init__(self, owner: Trained, folder: Path | None, images: int, *, resumed: bool) -> None:
        self.owner = owner
        self.folder = folder if is_main_process() else None
        self.tensors: dict[str, Tensor] = {}
        self.written = False
        owner.summary_ = {"images": images, "epochs": 0}
        if resumed and folder is not None:
            self._take_up(folder)

    def _take_up(self, folder: Path) -> None:
        """Go on where the run's files are; none of them is there before the first epoch has ended."""
        try:
            run = load_run(folder, "network")
        except UserError:
            # Killed in the first epoch; later, the run is written before the checkpoint.
            return
        if run.model.get("training") != self.owner.training_:
            return  # the run that this training is about to replace
        self.written = True
        names = self.owner.network_.state_dict().keys()
        self.tensors = {name: value for name, value in run.tensors.items() if name in names}
        summary = run.model.get("summary")
        if isinstance(summary, dict):
            self.owner.summary_ |= {
                name: value for name, value in summary.items() if name in ("epochs", "kept_epoch", "best")
            }

    def note(self, network: nn.Module, report: EpochReport) -> None:
        """Keep the weights of an epoch that ended, if it is the best, and bring the run up to date."""
        summary = self.owner.summary_
        summary["epochs"] = report.epoch
        if report.best:
            self.tensors = {name: t.detach().cpu().clone() for name, t in network.state_dict().items()}
            summary["kept_epoch"] = report.epoch
            summary["best"] = report.loss if report.held_error is None else report.held_error
        if self.folder is None:
            return
        if not self.written:
            remove(self.folder / NAME)  # of a run that is replaced
            _clear_board(self.folder)
        if report.best:
            self.owner.write_run(self.folder, keep_log=self.written)
            self.written = True
        else:
            describe_run(self.folder, {"summary": summary})
        _trim_log(self.folder, report.epoch)
        append_log(self.folder, {"verb": "train", **asdict(report)})
        _write_board(self.folder, report)


def _trim_log(folder: Path, epoch: int) -> None:
    """Drop the lines of epochs that a resumed run trains again."""
    path = folder / "log.jsonl"
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8", errors="backslashreplace").splitlines(keepends=True)
    kept = [line for line in lines if not _is_of_epoch(line, epoch)]
    if len(kept) < len(lines):
        write_text(path, "".join(kept))


def _is_of_epoch(line: str, epoch: int) -> bool:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return False  # cut off by a kill; it is no line of ours any more, and stays as it is
    if not isinstance(record, dict) or record.get("verb") != "train":
        return False
    number = record.get("epoch")
    return isinstance(number, int) and number >= epoch


def _clear_board(folder: Path) -> None:
    for path in (folder / _BOARD).glob("events.out.tfevents.*"):
        remove(path)


def _write_board(folder: Path, report: EpochReport) -> None:
    """One point of each of TensorBoard's curves."""
    from torch.utils.tensorboard.writer import SummaryWriter

    try:
        with SummaryWriter(str(folder / _BOARD), filename_suffix=f".{report.epoch}") as board:
            for name in ("size", "rate", "loss", "error", "held_error"):
                value = getattr(report, name)
                if value is not None:
                    board.add_scalar(name, value, report.epoch)
    except OSError as error:
        raise UserError(folder / _BOARD, "a folder that can be written", error.strerror or error) from error
