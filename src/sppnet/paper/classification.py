"""The paper's tables of classification, beside the figures of a run here (paper sections 1.4 and 2)."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from sppnet.classify import ViewOptions
from sppnet.classify.views import paper_96
from sppnet.data import missing, recognise
from sppnet.errors import UserError
from sppnet.paper.networks import FORMS, Plan, kept_errors, plan_of
from sppnet.paper.plot import plot_rows
from sppnet.paper.tables import Request, Row, Table, TableMaker
from sppnet.paper.transfer import table6, table7

__all__ = ["TABLES", "table2", "table3", "table4"]

# Top-1 and top-5 errors in percent, a pair a form.
_TABLE2 = {
    "zf5": ((35.99, 14.76), (34.98, 14.14), (34.60, 13.64)),
    "convnet5": ((34.93, 13.92), (34.38, 13.54), (33.94, 13.33)),
    "overfeat5": ((34.13, 13.52), (32.87, 12.80), (32.26, 12.33)),
    "overfeat7": ((32.01, 11.97), (30.36, 11.12), (29.68, 10.95)),
}
_TABLE3 = {
    "zf5": ((38.01, 37.55), (37.57, 37.07)),
    "overfeat7": ((33.18, 32.72), (32.57, 31.25)),
}
_TABLE4 = {"10 views": (29.68, 10.95), "96 views + 2 full": (27.86, 9.14), "96 views": (None, 9.36)}
_UNIT = "error, %"


def table2(request: Request) -> Table:
    """No SPP, SPP at one size and at several: 10 views by crops, and beyond the paper the full image.

    Raises:
        UserError: data that are no labelled images; says where ILSVRC's come from.
    """
    plan = _plan(request)
    crop, short = plan.train.crop, plan.train.short_side
    ten = ViewOptions((short,), crop, "five")
    full = ViewOptions(positions="none", flip=False, full=short)
    paper = _TABLE2.get(_net(request))
    rows: list[Row] = []
    for number, form in enumerate(FORMS):
        views = {"10 views": ten} if form == FORMS[0] else {"10 views": ten, "full image": full}
        runs = [kept_errors(request, plan, form, seed, views) for seed in range(plan.seeds)]
        for name in views:
            for place, rank in enumerate(("top-1", "top-5")):
                known = paper[number][place] if paper and name == "10 views" else None
                rows.append(_row(f"{form}, {name}, {rank}", known, [run[name][place] for run in runs]))
    return _table("table2", request, plan, rows)


def table3(request: Request) -> Table:
    """One view: the centre crop against the full image, top-1, for both kinds of training.

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
    for number, form in enumerate(FORMS[1:]):
        runs = [kept_errors(request, plan, form, seed, views) for seed in range(plan.seeds)]
        for place, name in enumerate(views):
            known = paper[number][place] if paper else None
            rows.append(_row(f"{form}, {name}, top-1", known, [run[name][0] for run in runs]))
    return _table("table3", request, plan, rows)


def table4(request: Request) -> Table:
    """10 views, 96 views on the maps of six scales, and two full images besides; multi-size training.

    The 10 views are there by crops and on the maps, which the paper finds within 0.1% in top-5.

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
    runs = [kept_errors(request, plan, FORMS[2], seed, views) for seed in range(plan.seeds)]
    rows: list[Row] = []
    for name in views:
        for place, rank in enumerate(("top-1", "top-5")):
            known = _TABLE4.get(name, (None, None))[place] if _net(request) == "overfeat7" else None
            rows.append(_row(f"{name}, {rank}", known, [run[name][place] for run in runs]))
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


def _row(setting: str, paper: float | None, runs: Sequence[float]) -> Row:
    deviation = statistics.stdev(runs) if len(runs) > 1 else 0.0
    note = f"mean of {len(runs)} runs" if len(runs) > 1 else ""
    return Row(setting, paper, statistics.mean(runs), deviation, note)


def _table(name: str, request: Request, plan: Plan, rows: Sequence[Row]) -> Table:
    differs = [f"data: {request.data.name}", f"network: {request.backbone}", *plan.said]
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
"""By name, what makes it."""
