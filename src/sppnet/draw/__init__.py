"""Boxes on pictures, contact sheets, plots and the report."""

from sppnet.draw.boxes import DrawSource, as_picture, draw_boxes, draw_labels
from sppnet.draw.palette import PALETTE, class_colour
from sppnet.draw.plots import plot_bars, plot_confusion, plot_lines, plot_precision_recall
from sppnet.draw.report import ReportPicture, ReportTable, write_report
from sppnet.draw.sheets import contact_sheet, draw_comparison, save_picture

__all__ = [
    "DrawSource",
    "PALETTE",
    "ReportPicture",
    "ReportTable",
    "as_picture",
    "class_colour",
    "contact_sheet",
    "draw_boxes",
    "draw_comparison",
    "draw_labels",
    "plot_bars",
    "plot_confusion",
    "plot_lines",
    "plot_precision_recall",
    "save_picture",
    "write_report",
]
