"""Requests and results of the tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

PAPER_MEAN = 128.0
"""Pixel value that is subtracted from images of VOC 2007 and Caltech101 (He et al. 2015, appendix A)."""


@dataclass(frozen=True)
class DetectionSize:
    """Amount of work for Tables 9 to 12; each table states the values that it was measured with.

    Attributes:
        windows: maximum number of proposals per image; 2,000 in the paper.
        width: number of units of fc6 and of fc7, if they are not pretrained.
        batches: number of fine-tuning batches; the last fifth has a tenth of the learning rate.
        rate: initial learning rate; with random weights, 1e-4 as in the paper needs many more batches.
        flipped: flip half of the images in fine-tuning, unlike the paper; their maps are computed too.
        rcnn: measure R-CNN too, which convolves every proposal and takes most of the time.
        timed: number of images for the seconds of Tables 9 and 10; 100 in the paper.
    """

    windows: int = 2000
    width: int = 1024
    batches: int = 2500
    rate: float = 3e-4
    flipped: bool = False
    rcnn: bool = True
    timed: int = 5


@dataclass(frozen=True)
class Request:
    """Data and network of a table.

    Attributes:
        data: folder of the data set.
        out: folder of the plot, the JSON document and cached stages.
        backbone: name of the network.
        weights: a safetensors file or a run folder; None to download or to train the weights.
        device: auto, cpu, cuda or mps.
        seed: seed of all random numbers.
        quick: reduce all work, for tests; not for reports.
        quiet: whether to hide progress bars.
        detection: amount of work for Tables 9 to 12.
    """

    data: Path
    out: Path
    backbone: str
    weights: Path | None = None
    device: str = "auto"
    seed: int = 0
    quick: bool = False
    quiet: bool = False
    detection: DetectionSize = DetectionSize()


@dataclass(frozen=True)
class Row:
    """One value of a table.

    Attributes:
        setting: row and column in the table of the paper.
        paper: the value in the paper, None if there is none.
        ours: the measured value in the same unit, None if it was not measured.
        deviation: standard deviation over splits or seeds, 0 for one run.
        note: differences from the paper in network, data or training.
        unit: unit of the values, if it differs from that of the table.
    """

    setting: str
    paper: float | None
    ours: float | None
    deviation: float = 0.0
    note: str = ""
    unit: str = ""


@dataclass(frozen=True)
class Table:
    """A table of the paper with measured values.

    Attributes:
        table: its name, such as ``"table2"``.
        data: the data set.
        unit: unit of the rows without their own, such as ``"top-1 error, %"``.
        rows: the values.
        differs: differences of all rows from the paper in data, network or training.
        plot: a PNG file, or None without a plot.
    """

    table: str
    data: str
    unit: str
    rows: tuple[Row, ...]
    differs: tuple[str, ...] = ()
    plot: bytes | None = field(default=None, repr=False)


TableMaker = Callable[[Request], Table]
"""A function that measures one table."""


@dataclass(frozen=True)
class Source:
    """The network and the data of a value.

    Attributes:
        network: a name as for ``--backbone``, such as ``"zf5"``, or ``"AlexNet"``.
        data: name of the data set.
    """

    network: str
    data: str


def row_note(paper: float | None, theirs: Source, ours: Source, *more: str) -> str:
    """Return the note of a row, which states differences in network or data.

    Args:
        paper: the value in the paper.
        theirs: network and data of the paper.
        ours: network and data of the measurement.
        more: further remarks.

    Returns:
        Remarks separated by semicolons; ``""`` without any.

    Examples:
        >>> row_note(43.0, Source("zf5", "VOC 2007"), Source("builtin", "bccd"))
        "the paper's is zf5 on VOC 2007, ours builtin on bccd"
        >>> row_note(None, Source("zf5", "VOC 2007"), Source("builtin", "bccd"))
        ''
    """
    remarks: list[str] = []
    if paper is not None and theirs != ours:
        remarks.append(
            f"the paper's is {theirs.network} on {theirs.data}, ours {ours.network} on {ours.data}"
        )
    return "; ".join([*remarks, *(remark for remark in more if remark)])


def subtracts_paper_mean(backbone: str) -> bool:
    """Return whether a network takes images less the paper's constant mean on VOC 2007 and Caltech101."""
    from sppnet.backbones.paper_nets import is_paper_net  # imports torch

    return is_paper_net(backbone)
