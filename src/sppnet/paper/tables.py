"""What reproducing a table of the paper asks for and gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class DetectionSize:
    """How much work tables 9 to 12 take; each table says which values it was made with.

    Attributes:
        windows: windows an image, at most; the paper's are 2,000.
        width: neurons of fc6 and of fc7, where nothing is pretrained.
        batches: of fine-tuning, the last fifth of them at a tenth of the rate.
        rate: the first learning rate; from random weights on, the paper's 1e-4 would need many more batches.
        flipped: half of the images are seen flipped in fine-tuning, which needs their maps too.
    """

    windows: int = 2000
    width: int = 1024
    batches: int = 2500
    rate: float = 3e-4
    flipped: bool = True


@dataclass(frozen=True)
class Request:
    """Which data and network a table is to be made with.

    Attributes:
        data: the folder of the data set.
        out: a folder for the plot, the JSON document and what may be used again; made when missing.
        backbone: name of the network.
        weights: its local weights, or None to download or to train them.
        device: auto, cpu, cuda or mps.
        seed: of everything random.
        quick: less of everything, to see that it runs; not for reporting.
        quiet: no progress bars.
        detection: how much work tables 9 to 12 take.
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
        setting: which row and column of the paper's table.
        paper: the paper's figure, None where it has none.
        ours: this run's, in the paper's unit; None where it could not be measured.
        deviation: standard deviation over splits or seeds, 0 for one run.
        note: what differs from the paper in this row.
    """

    setting: str
    paper: float | None
    ours: float | None
    deviation: float = 0.0
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table of the paper beside a run's figures.

    Attributes:
        table: its name, such as ``"table2"``.
        data: what it was made with.
        unit: of all figures, such as ``"top-1 error, %"``.
        rows: the figures.
        differs: what differs from the paper in all rows: data, network, length of training.
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
