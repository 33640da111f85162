"""Draw boxes on images, contact sheets, plots and reports.

Shapes: `H` and `W` height and width of an image, `M` points of a curve, `K` classes.
"""

from sppnet.draw.boxes import DrawSource, as_image, draw_boxes, draw_labels
from sppnet.draw.fonts import undrawable_names
from sppnet.draw.palette import PALETTE, class_colour
from sppnet.draw.plots import plot_bars, plot_confusion, plot_lines, plot_precision_recall
from sppnet.draw.report import ReportImage, ReportTable, write_report
from sppnet.draw.sheets import contact_sheet, draw_comparison, encode_image, save_image

__all__ = [
    "DrawSource",
    "PALETTE",
    "ReportImage",
    "ReportTable",
    "as_image",
    "class_colour",
    "contact_sheet",
    "draw_boxes",
    "draw_comparison",
    "draw_labels",
    "encode_image",
    "plot_bars",
    "plot_confusion",
    "plot_lines",
    "plot_precision_recall",
    "save_image",
    "undrawable_names",
    "write_report",
]
