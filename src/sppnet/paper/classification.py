"""Tables 2 to 4: image classification on ImageNet 2012 (He et al. 2015, section 3.1)."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Sequence
from pathlib import Path

from sppnet.classify import ViewOptions
from sppnet.classify.views import paper_96
from sppnet.data import missing, recognise
from sppnet.errors import UserError
from sppnet.paper.networks import FORMS, Plan, cached_errors, plan_of
from sppnet.paper.plot import plot_rows
from sppnet.paper.tables import Request, Row, Source, Table, TableMaker, row_note
from sppnet.paper.transfer import table6, table7

__all__ = ["TABLES", "table2", "table3", "table4"]

_IMAGENET = "ILSVRC 2012"
# Top-1 and top-5 errors in percent, one pair per form.
_TABLE2 = {
    "zf5": ((35.99, 14.76), (34.98, 14.14), (34.60, 13.64)),
    "convnet5": ((34.93, 13.92), (34.38, 13.54), (33.94, 13.33)),
    "overfeat5": ((34.13, 13.52), (32.87, 12.80), (32.26, 12.33)),
    "overfeat7": ((32.01, 11.97), (30.36, 11.12), (29.68, 10.95)),
}
# Variants in the text: 30 bins (section 3.1.2), random sizes (section 3.1.3).
_THIRTY = {"zf5": (35.06, 14.04)}
_RANDOM = {"overfeat7": (30.06, 10.96)}
_TABLE3 = {
    "zf5": ((38.01, 37.55), (37.57, 37.07)),
    "overfeat7": ((33.18, 32.72), (32.57, 31.25)),
}
_TABLE4 = {"10 views": (29.68, 10.95), "96 views + 2 full": (27.86, 9.14), "96 views": (None, 9.36)}
_ILSVRC_CLASSES = 1000
_UNIT = "error, %"


def table2(request: Request) -> Table:
    """Train without SPP, with SPP at one, several and random sizes, and with 30 bins (section 3.1).

    The errors are those of 10 views by crops and, in addition to the paper, of the full image.

    Raises:
        UserError: the data are not a classification data set; the hint states the source of ILSVRC 2012.
    """
    plan = _plan(request)
    crop, short = plan.train.crop, plan.train.short_side
    ten = ViewOptions((short,), crop, "five")
    full = ViewOptions(positions="none", flip=False, full=short)
    name = _net(request)
    paper = [*_TABLE2.get(name, (None,) * 3), _THIRTY.get(name), _RANDOM.get(name)]
    rows: list[Row] = []
    for form, figures in zip(FORMS, paper, strict=True):
        views = {"10 views": ten} if form == FORMS[0] else {"10 views": ten, "full image": full}
        runs = [cached_errors(request, plan, form, seed, views) for seed in range(plan.seeds)]
        for view in views:
            for i, rank in enumerate(("top-1", "top-5")):
                known = figures[i] if figures and view == "10 views" else None
                errors = [run[view][i] for run in runs]
                rows.append(_row(request, f"{form}, {view}, {rank}", known, errors))
    return _table("table2", request, plan, rows)


def table3(request: Request) -> Table:
    """Compare centre crop and full image for single-size and multi-size training (section 3.1.4).

    Raises:
        UserError: as `table2`.
    """
    plan = _plan(request)
    short = plan.train.short_side
    views = {
        "centre crop": ViewOptions((short,), plan.train.crop, "centre", flip=False),
        "full image": ViewOptions(positions="none", flip=False, full=short),
    }
    paper = _TABLE3.get(_net(request))
    rows: list[Row] = []
    for number, form in enumerate(FORMS[1:3]):
        runs = [cached_errors(request, plan, form, seed, views) for seed in range(plan.seeds)]
        for i, name in enumerate(views):
            known = paper[number][i] if paper else None
            rows.append(_row(request, f"{form}, {name}, top-1", known, [run[name][0] for run in runs]))
    return _table("table3", request, plan, rows)


def table4(request: Request) -> Table:
    """Compare 10 views, 96 views on maps of six scales, and these with two full images (section 3.1.5).

    The 10 views are measured by crops and on maps; in the paper their top-5 errors differ by at most 0.1%.

    Raises:
        UserError: as `table2`.
    """
    plan = _plan(request)
    crop, short = plan.train.crop, plan.train.short_side
    views = {
        "10 views": ViewOptions((short,), crop, "five"),
        "10 views on maps": ViewOptions((short,), crop, "five", how="maps"),
        "96 views": paper_96(crop, full=False),
        "96 views + 2 full": paper_96(crop),
    }
    runs = [cached_errors(request, plan, FORMS[2], seed, views) for seed in range(plan.seeds)]
    rows: list[Row] = []
    for name in views:
        for i, rank in enumerate(("top-1", "top-5")):
            known = _TABLE4.get(name, (None, None))[i] if _net(request) == "overfeat7" else None
            rows.append(_row(request, f"{name}, {rank}", known, [run[name][i] for run in runs]))
    return _table("table4", request, plan, rows)


def _plan(request: Request) -> Plan:
    try:
        layout = recognise(request.data)
    except UserError:
        raise missing(request.data, "ILSVRC 2012") from None
    if layout != "folders":
        raise missing(request.data, "ILSVRC 2012")
    return plan_of(request)


def _net(request: Request) -> str:
    return request.backbone.partition("/")[0].removesuffix("-small")


def _row(request: Request, setting: str, paper: float | None, runs: Sequence[float]) -> Row:
    deviation = statistics.stdev(runs) if len(runs) > 1 else 0.0
    several = f"mean of {len(runs)} runs" if len(runs) > 1 else ""
    ours = Source(request.backbone, _IMAGENET if is_ilsvrc(request.data) else request.data.name)
    note = row_note(paper, Source(_net(request), _IMAGENET), ours, several)
    return Row(setting, paper, statistics.mean(runs), deviation, note)


@functools.cache
def is_ilsvrc(data: Path) -> bool:
    """Return whether the number of class folders is that of ILSVRC, 1,000."""
    train = data / "train"
    return train.is_dir() and sum(entry.is_dir() for entry in train.iterdir()) == _ILSVRC_CLASSES


def _table(name: str, request: Request, plan: Plan, rows: Sequence[Row]) -> Table:
    differs = [f"data: {request.data.name}", f"network: {request.backbone}", *plan.differs]
    return Table(
        name, str(request.data), _UNIT, tuple(rows), tuple(differs), plot_rows(rows, f"{name}: {_UNIT}")
    )


TABLES: dict[str, TableMaker] = {
    "table2": table2,
    "table3": table3,
    "table4": table4,
    "table6": table6,
    "table7": table7,
}
"""The functions that make the tables, by name."""
