"""JSON records of predictions, for estimators and for the runtime without torch."""

from __future__ import annotations

from collections.abc import Sequence


def detection_record(
    size: tuple[int, int],
    boxes: Sequence[Sequence[float]],
    scores: Sequence[float],
    labels: Sequence[int],
    names: Sequence[str],
) -> dict[str, object]:
    """Create the record of the detections of an image.

    Args:
        size: height and width of the image in pixels.
        boxes: N boxes ``(x0, y0, x1, y1)`` in pixels.
        scores: N scores.
        labels: N indices into ``names``.
        names: class names.

    Returns:
        ``{"height", "width", "detections": [{"box", "score", "label", "name"}]}``, with boxes rounded to two
        and scores to four decimal places.
    """
    found = [
        {
            "box": [round(v, 2) for v in box],
            "score": round(score, 4),
            "label": label,
            "name": names[label],
        }
        for box, score, label in zip(boxes, scores, labels, strict=True)
    ]
    return {"height": size[0], "width": size[1], "detections": found}


def classification_record(
    labels: Sequence[int], scores: Sequence[float], names: Sequence[str]
) -> dict[str, object]:
    """Create the record of the most probable classes of an image.

    Returns:
        ``{"classes": [{"label", "name", "score"}]}``, with scores rounded to four decimal places.
    """
    pairs = zip(labels, scores, strict=True)
    return {
        "classes": [
            {"label": label, "name": names[label], "score": round(score, 4)} for label, score in pairs
        ]
    }
