"""``sppnet reproduce TABLE``: values of the paper and values measured on local data."""

from __future__ import annotations

import dataclasses
import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from sppnet.cli.estimators import Device
from sppnet.cli.flag_table import Group
from sppnet.cli.flags import ConfigFile, UsageError, read_flags
from sppnet.cli.paths import DataPath, OptionalRunPath, OutFolder, WeightsPath
from sppnet.cli.screen import opened_screen
from sppnet.cli.starts import start_network
from sppnet.files import make_folder, write_bytes
from sppnet.paper.tables import DetectionSize, Request
from sppnet.runs import json_text

__all__ = ["ReproduceFlags", "run"]

_DETECTION = Group("Work for Tables 9 to 12", shown=())
_TABLES = {
    "sppnet.paper.classification": ("table2", "table3", "table4", "table6", "table7"),
    "sppnet.paper.detection": ("table9", "table10", "table11", "table12"),
}


@dataclass(frozen=True)
class ReproduceFlags:
    """Reproduce a table of the paper on a local data set.

    Attributes:
        table: table2, table3, table4, table6, table7 (classification), table9 to table12 (detection).
        data: data set.
        out: folder for the JSON document, the plot and cached stages.
        backbone: zf5, convnet5, overfeat5, overfeat7, builtin, lite0, lite2, torchvision:NAME or timm:NAME.
        weights: local weights of the backbone, a safetensors file or a run folder.
        from_run: run of sppnet train classify to start from: backbone, weights, mean, and for table6, table7
            and table9 to table12 fc6 and fc7.
        device: device to compute on.
        seed: seed of all random numbers.
        quick: reduce everything, to test that it runs.
        detection: amount of work for Tables 9 to 12.
        config: TOML file with values for these flags; flags on the command line win.
        json: print one JSON document on stdout and everything else on stderr.
    """

    table: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TABLE")]
    data: DataPath
    out: OutFolder = Path("reproduce")
    backbone: str = "zf5"
    weights: WeightsPath = None
    from_run: OptionalRunPath = None
    device: Device = "auto"
    seed: int = 0
    quick: bool = False
    detection: Annotated[DetectionSize, _DETECTION] = field(default_factory=DetectionSize)
    config: ConfigFile = None
    json: bool = False


def run(words: list[str]) -> int:
    """Measure, print and write the table."""
    flags = read_flags(ReproduceFlags, "sppnet reproduce", words)
    module = next((name for name, tables in _TABLES.items() if flags.table in tables), None)
    if module is None:
        known = ", ".join(name for tables in _TABLES.values() for name in tables)
        raise UsageError("sppnet reproduce", f"{flags.table!r} is none of the tables {known}")
    fields = {f.name: getattr(flags, f.name) for f in dataclasses.fields(Request) if f.name != "quiet"}
    fields["backbone"], fields["weights"] = start_network(
        "sppnet reproduce", flags.backbone, ReproduceFlags.backbone, flags.weights, flags.from_run
    )
    with opened_screen(json=flags.json) as screen:
        made = importlib.import_module(module).TABLES[flags.table](Request(**fields))
        document = {
            "table": made.table,
            "data": made.data,
            "unit": made.unit,
            "rows": [{**dataclasses.asdict(row), "unit": row.unit or made.unit} for row in made.rows],
            "differs": list(made.differs),
        }
        make_folder(flags.out)
        write_bytes(flags.out / f"{made.table}.json", (json_text(document) + "\n").encode())
        if made.plot is not None:
            write_bytes(flags.out / f"{made.table}.png", made.plot)
        rows = [
            [row.setting, row.paper, row.ours, row.deviation, row.unit or made.unit, row.note]
            for row in made.rows
        ]
        title = f"{made.table} ({made.unit}) on {made.data}"
        screen.table(title, ("setting", "paper", "here", "deviation", "unit", "note"), rows)
        for line in made.differs:
            screen.say(f"Differs from the paper: {line}")
        screen.document(document)
    return 0
