"""Measures of a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sppnet.errors import UserError
from sppnet.evaluate.voc import precision_recall


def classification_metrics(scores: Tensor, labels: Tensor, names: Sequence[str]) -> dict[str, Any]:
    """How often the best class, or one of the five best, is the right one.

    Args:
        scores: ``[N, K]``, higher is likelier; of equal scores the class with the smaller number wins.
        labels: integers ``[N]``, 0..K-1.
        names: K class names.

    Returns:
        A mapping that JSON can hold:

        - "accuracy": share of the images whose best class is right, 0..1.
        - "mean_class_accuracy": mean of the classes' accuracies, over the classes with images.
        - "top5": share of the images whose class is among the min(5, K) best.
        - "images": N.
        - "per_class": for each name its "accuracy" (None without images) and "images".
        - "confusion": K rows of K counts; row: true class, column: best class.

    Raises:
        UserError: no images, shapes that do not fit, a label out of range, a score that is NaN, or a
            name that repeats.
    """
    _check_scores(scores)
    count, classes = scores.shape
    _check_labels(labels, count, classes)
    if len(names) != classes or len(set(names)) != classes:
        raise UserError("names", f"{classes} different names, one a column of scores", list(names))
    truth = labels.cpu().to(torch.int64)
    ranked = scores.detach().cpu().sort(dim=1, descending=True, stable=True).indices
    counts = torch.bincount(truth * classes + ranked[:, 0], minlength=classes * classes)
    confusion = counts.reshape(classes, classes)
    images: list[int] = confusion.sum(1).tolist()
    right: list[int] = confusion.diagonal().tolist()
    accuracies = [hits / total if total else None for hits, total in zip(right, images, strict=True)]
    known = [accuracy for accuracy in accuracies if accuracy is not None]
    return {
        "accuracy": sum(right) / count,
        "mean_class_accuracy": sum(known) / len(known),
        "top5": int((ranked[:, :5] == truth[:, None]).sum()) / count,
        "images": count,
        "per_class": {
            name: {"accuracy": accuracy, "images": total}
            for name, accuracy, total in zip(names, accuracies, images, strict=True)
        },
        "confusion": confusion.tolist(),
    }


def mean_average_precision(scores: Tensor, relevant: Tensor) -> float:
    """VOC 2007's mAP of classification, for images of several classes each (paper section 3.2).

    The images are ranked for each class, equal scores in the order given; AP is the mean over recalls
    0, 0.1, ..., 1 of the best precision at that recall or more.

    Args:
        scores: ``[N, K]``, higher is likelier.
        relevant: bool ``[N, K]``; whether an image shows a class.

    Returns:
        The mean over the classes that some image shows, 0..1.

    Raises:
        UserError: no images, shapes or dtypes that do not fit, a score that is NaN, or no class shown.
    """
    _check_scores(scores)
    if relevant.shape != scores.shape or relevant.dtype != torch.bool:
        raise UserError(
            "relevant", f"a bool tensor {list(scores.shape)}", f"{relevant.dtype} {list(relevant.shape)}"
        )
    values, shown = scores.detach().cpu().double().numpy(), relevant.cpu().numpy()
    curves = [
        precision_recall(values[:, k], shown[:, k], int(shown[:, k].sum())) for k in range(shown.shape[1])
    ]
    known = [value for value in (curve.eleven_point for curve in curves) if value is not None]
    if not known:
        raise UserError("relevant", "a class that some image shows", "none")
    return sum(known) / len(known)


def _check_scores(scores: Tensor) -> None:
    if scores.ndim != 2 or 0 in scores.shape:
        raise UserError("scores", "a tensor [N, K] of at least one image and class", list(scores.shape))
    if bool(torch.isnan(scores).any()):
        row = int(torch.isnan(scores).any(1).nonzero()[0, 0])
        raise UserError(f"scores[{row}]", "numbers", "NaN")


def _check_labels(labels: Tensor, count: int, classes: int) -> None:
    if labels.shape != (count,) or labels.dtype.is_floating_point or labels.dtype == torch.bool:
        raise UserError("labels", f"integers [{count}]", f"{labels.dtype} {list(labels.shape)}")
    wrong = ((labels < 0) | (labels >= classes)).nonzero()
    if len(wrong):
        row = int(wrong[0, 0])
        raise UserError(f"labels[{row}]", f"a class number 0..{classes - 1}", int(labels[row]))
