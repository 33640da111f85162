"""Draw boxes on images, contact sheets, plots and reports.

Shapes: `H` and `W` height and width of an image, `M` points of a curve, `K` classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sppnet.lazy import lazy_names

if TYPE_CHECKING:
    from sppnet.draw.boxes import DrawSource, as_image, draw_boxes, draw_labels
    from sppnet.draw.fonts import undrawable_names
    from sppnet.draw.image_files import encode_image, save_image
    from sppnet.draw.palette import PALETTE, class_colour
    from sppnet.draw.plots import plot_bars, plot_confusion, plot_lines, plot_precision_recall
    from sppnet.draw.report import ReportImage, ReportTable, write_report
    from sppnet.draw.sheets import contact_sheet, draw_comparison

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

# Results without torch are drawn too: a name imports its own module alone.
_HOMES = {
    "DrawSource": "sppnet.draw.boxes",
    "as_image": "sppnet.draw.boxes",
    "draw_boxes": "sppnet.draw.boxes",
    "draw_labels": "sppnet.draw.boxes",
    "undrawable_names": "sppnet.draw.fonts",
    "encode_image": "sppnet.draw.image_files",
    "save_image": "sppnet.draw.image_files",
    "PALETTE": "sppnet.draw.palette",
    "class_colour": "sppnet.draw.palette",
    "plot_bars": "sppnet.draw.plots",
    "plot_confusion": "sppnet.draw.plots",
    "plot_lines": "sppnet.draw.plots",
    "plot_precision_recall": "sppnet.draw.plots",
    "ReportImage": "sppnet.draw.report",
    "ReportTable": "sppnet.draw.report",
    "write_report": "sppnet.draw.report",
    "contact_sheet": "sppnet.draw.sheets",
    "draw_comparison": "sppnet.draw.sheets",
}

__getattr__ = lazy_names(__name__, _HOMES)
