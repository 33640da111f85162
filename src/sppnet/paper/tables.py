"""What a table of the paper is made from, and what it consists of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

PAPER_MEAN = 128.0
"""Pixel value that the paper subtracts from the images of VOC 2007 and Caltech101 (appendix A)."""


@dataclass(frozen=True)
class DetectionSize:
    """Amount of work for Tables 9 to 12; each table states the values that it was made with.

    Attributes:
        windows: maximum number of proposals per image; 2,000 in the paper.
        width: units of fc6 and of fc7, where nothing is pretrained.
        batches: of fine-tuning, the last fifth of them at a tenth of the rate.
        rate: the first learning rate; from random weights the paper's 1e-4 needs many more batches.
        flipped: flip half of the images in fine-tuning, which needs their maps too; the paper does not.
        rcnn: also measure R-CNN, which convolves every proposal and takes most of the time.
        timed: number of images on which the seconds of Tables 9 and 10 are measured; 100 in the paper.
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
        data: the folder of the data set.
        out: a folder for the plot, the JSON document and cached stages; made when missing.
        backbone: name of the network.
        weights: local weights, a safetensors file or a run folder; None to download or to train them.
        device: auto, cpu, cuda or mps.
        seed: of everything random.
        quick: reduce everything, to test that a table can be made; not for reporting.
        quiet: no progress bars.
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
    """One figure of a table.

    Attributes:
        setting: row and column of the paper's table.
        paper: the paper's figure, None where it has none.
        ours: this run's, in the same unit; None where it was not measured.
        deviation: standard deviation over splits or seeds, 0 for one run.
        note: how this row differs from the paper: network, data, training.
        unit: of the figures, where it is not the table's.
    """

    setting: str
    paper: float | None
    ours: float | None
    deviation: float = 0.0
    note: str = ""
    unit: str = ""


@dataclass(frozen=True)
class Table:
    """A table of the paper beside a run's figures.

    Attributes:
        table: its name, such as ``"table2"``.
        data: what it was made with.
        unit: of all figures whose rows have none, such as ``"top-1 error, %"``.
        rows: the figures.
        differs: how all rows differ from the paper: data, network, length of training.
        plot: the plot as a PNG file, or None where there is nothing to draw.
    """

    table: str
    data: str
    unit: str
    rows: tuple[Row, ...]
    differs: tuple[str, ...] = ()
    plot: bytes | None = field(default=None, repr=False)


TableMaker = Callable[[Request], Table]
"""Makes one table."""


@dataclass(frozen=True)
class Source:
    """The network and the data of a figure.

    Attributes:
        network: as ``--backbone`` takes it; of the paper ``"zf5"`` and the like, or ``"AlexNet"``.
        data: name of the data set.
    """

    network: str
    data: str


def row_note(paper: float | None, theirs: Source, ours: Source, *more: str) -> str:
    """Return the note of a row: whose figure stands beside ours where network or data differ.

    Args:
        paper: the paper's figure of the row.
        theirs: where it comes from.
        ours: where ours comes from; its data are called as ``theirs`` calls them where they are the same.
        more: further remarks.

    Returns:
        Remarks joined by semicolons; ``""`` where nothing differs.

    Examples:
        >>> row_note(43.0, Source("zf5", "VOC 2007"), Source("builtin", "bccd"))
        "the paper's is zf5 on VOC 2007, ours builtin on bccd"
        >>> row_note(None, Source("zf5", "VOC 2007"), Source("builtin", "bccd"))
        ''
    """
    told: list[str] = []
    if paper is not None and theirs != ours:
        told.append(f"the paper's is {theirs.network} on {theirs.data}, ours {ours.network} on {ours.data}")
    return "; ".join([*told, *(one for one in more if one)])


def subtracts_paper_mean(backbone: str) -> bool:
    """Return whether a network takes images less the paper's constant mean on VOC 2007 and Caltech101."""
    from sppnet.backbones.paper_nets import is_paper_net  # imports torch

    return is_paper_net(backbone)
