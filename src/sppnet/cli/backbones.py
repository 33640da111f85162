"""``sppnet backbones``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sppnet.cli.flags import read_flags
from sppnet.cli.screen import opened_screen

__all__ = ["BackbonesFlags", "run"]

_MORE = (
    "Other networks of timm and torchvision have names of the same form. The prefix random: selects random "
    "weights, --weights FILE.safetensors local weights."
)


@dataclass(frozen=True)
class BackbonesFlags:
    """List the networks for --backbone: strides, channels, licence, size, accuracy and time.

    Attributes:
        json: print one JSON document on stdout and everything else on stderr.
    """

    json: bool = False


def run(words: list[str]) -> int:
    """Print the table."""
    flags = read_flags(BackbonesFlags, "sppnet backbones", words)
    from sppnet.backbones.catalogue import read_catalogue
    from sppnet.backbones.registry import ADAPTERS

    entries = read_catalogue()
    with opened_screen(json=flags.json) as screen:
        # Lines instead of a table, in which a narrow terminal would break names.
        if not flags.json:
            head = ("strides", "channels", "licence", "MB", "Caltech101", "BCCD AP50", "ms")
            screen.say(_line("name", head))
            for one in entries:
                strides = " ".join(f"{stride:g}" for stride in one.strides)
                figures = (one.download_mb, one.caltech101_accuracy, one.bccd_ap50, one.milliseconds)
                told = ["-" if value is None else f"{value:g}" for value in figures]
                cells = (strides, " ".join(map(str, one.channels)), one.licence or "not stated", *told)
                screen.say(_line(one.name, cells))
        screen.say(_MORE)
        screen.document(
            {
                "forms": [adapter.forms for adapter in ADAPTERS],
                "backbones": [one.to_dict() for one in entries],
            }
        )
    return 0


def _line(name: str, cells: Sequence[str]) -> str:
    widths = (8, 9, 13, 7, 11, 10, 4)
    return f"{name:<38}" + " ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True))
