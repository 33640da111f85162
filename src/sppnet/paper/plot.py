"""Plots of tables."""

from __future__ import annotations

from collections.abc import Sequence

from sppnet.draw import plot_bars
from sppnet.paper.tables import Row


def plot_rows(rows: Sequence[Row], title: str) -> bytes:
    """Plot the measured values with their deviations and the values of the paper as bars; a PNG file."""
    measured = [(row.setting, row.ours, row.deviation) for row in rows]
    paper = [(row.setting, row.paper, 0.0) for row in rows]
    series = {"here": measured}
    if any(row.paper is not None for row in rows):
        series["paper"] = paper
    return plot_bars(series, title)
