"""The networks that ``sppnet backbones`` shows, a table made by `sppnet.recipes.backbone_table`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

CATALOGUE = Path(__file__).with_name("catalogue.json")


@dataclass(frozen=True)
class Entry:
    """One network.

    Attributes:
        name: as ``--backbone`` takes it.
        layers: names of its default maps.
        strides: of these maps, in pixels of the network's input.
        channels: of these maps.
        millions_of_parameters: up to its last default map.
        licence: of the weights, as their publisher states it; None where none is stated.
        download_mb: size of the published weights; 0 where nothing is downloaded.
        caltech101_accuracy: mean class accuracy on a part of Caltech101, None where not measured.
        bccd_ap50: AP50 of a detector on BCCD; this and the other figures are None where not measured.
        bccd_ap75: AP75 of the same detector.
        fruit_ap50: of a detector of three kinds of fruit.
        fruit_ap75: of the same.
        raccoon_ap50: of a detector of raccoons, a quarter of the images held out.
        raccoon_ap75: of the same.
        milliseconds: for an image of 640x480 on two CPU threads, None where not measured.
    """

    name: str
    layers: tuple[str, ...]
    strides: tuple[float, ...]
    channels: tuple[int, ...]
    millions_of_parameters: float
    licence: str | None
    download_mb: float
    caltech101_accuracy: float | None = None
    bccd_ap50: float | None = None
    bccd_ap75: float | None = None
    fruit_ap50: float | None = None
    fruit_ap75: float | None = None
    raccoon_ap50: float | None = None
    raccoon_ap75: float | None = None
    milliseconds: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name, tuples as lists."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


def read_catalogue() -> list[Entry]:
    """Read the table that the package ships.

    Examples:
        >>> read_catalogue()[0].name
        'builtin'
    """
    rows: list[dict[str, Any]] = json.loads(CATALOGUE.read_text(encoding="utf-8"))
    entries: list[Entry] = []
    for row in rows:
        values: dict[str, Any] = dict(row)
        for name in ("layers", "strides", "channels"):
            values[name] = tuple(values[name])
        entries.append(_entry(values))
    return entries


def _entry(values: dict[str, Any]) -> Entry:
    return Entry(**values)
