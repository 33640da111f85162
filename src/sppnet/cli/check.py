"""``sppnet check``: the installation and the results of pooling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from sppnet.cli.flags import read_flags
from sppnet.cli.screen import opened_screen

__all__ = ["CheckFlags", "run"]


@dataclass(frozen=True)
class CheckFlags:
    """Check the installation: packages, device, kernels, optional extras, and the results of pooling.

    Attributes:
        json: print one JSON document on stdout and everything else on stderr.
    """

    json: bool = False


def run(words: list[str]) -> int:
    """Print the results; return 1 if pooling is incorrect."""
    flags = read_flags(CheckFlags, "sppnet check", words)
    with opened_screen(json=flags.json) as screen:
        from sppnet.cli.installation import inspect_installation

        found = inspect_installation()
        rows = [
            (name, ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value)
            for name, value in found.items()
            if name not in ("packages", "optional", "ok")
        ]
        screen.table("sppnet", ("", "value"), rows)
        screen.table("packages", ("name", "version"), _rows(found["packages"]))
        screen.table("extras", ("extra", "state"), _rows(found["optional"]))
        screen.document(found)
    return 0 if found["ok"] else 1


def _rows(table: object) -> list[tuple[str, str]]:
    return list(cast("Mapping[str, str]", table).items())
