"""Metrics of a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sppnet.errors import UserError
from sppnet.evaluate.voc import precision_recall


def classification_metrics(scores: Tensor, labels: Tensor, names: Sequence[str]) -> dict[str, Any]:
    """Compute top-1 and top-5 accuracy, accuracy per class and the confusion matrix.

    Args:
        scores: ``[N, K]``, the higher the more probable. Of equal scores, the class with the smaller number
            ranks first.
        labels: integers ``[N]``, 0..K-1.
        names: K class names.

    Returns:
        A mapping that can be written as JSON:

        - "accuracy": fraction of the images whose first-ranked class is correct, 0..1.
        - "mean_class_accuracy": mean of the accuracies of the classes with images.
        - "top5": fraction of the images whose class is among the first min(5, K).
        - "images": N.
        - "per_class": for each name, "accuracy" (None without images) and "images".
        - "confusion": counts ``[K, K]``; row: true class, column: first-ranked class.

    Raises:
        UserError: there are no images, shapes differ, a label is out of range, a score is NaN, or a name
            is not unique.

    Examples:
        >>> import torch
        >>> scores = torch.tensor([[0.9, 0.1], [0.3, 0.7], [0.6, 0.4]])
        >>> metrics = classification_metrics(scores, torch.tensor([0, 1, 1]), ("cat", "dog"))
        >>> metrics["confusion"]
        [[1, 0], [1, 1]]
    """
    _check_scores(scores)
    count, classes = scores.shape
    _check_labels(labels, count, classes)
    if len(names) != classes or len(set(names)) != classes:
        raise UserError("names", f"{classes} unique names, one per column of scores", list(names))
    truth = labels.cpu().to(torch.int64)
    ranked = scores.detach().cpu().sort(dim=1, descending=True, stable=True).indices
    counts = torch.bincount(truth * classes + ranked[:, 0], minlength=classes * classes)
    confusion = counts.reshape(classes, classes)
    images: list[int] = confusion.sum(1).tolist()
    correct: list[int] = confusion.diagonal().tolist()
    accuracies = [hits / total if total else None for hits, total in zip(correct, images, strict=True)]
    known = [accuracy for accuracy in accuracies if accuracy is not None]
    return {
        "accuracy": sum(correct) / count,
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
    """Compute the mAP of multi-label classification by the rules of VOC 2007.

    The images are ranked for each class; equal scores stay in the given order. AP is the mean over
    recalls 0, 0.1, ..., 1 of the highest precision at that recall or above. The paper reports this metric
    for VOC 2007 classification (He et al. 2015, section 3.2).

    Args:
        scores: ``[N, K]``, the higher the more probable.
        relevant: bool ``[N, K]``, True where an image shows a class.

    Returns:
        The mean over the classes that at least one image shows, 0..1.

    Raises:
        UserError: there are no images, shapes or dtypes are wrong, a score is NaN, or no image shows a
            class.

    Examples:
        >>> import torch
        >>> scores = torch.tensor([[0.9], [0.8], [0.1]])
        >>> mean_average_precision(scores, torch.tensor([[True], [False], [False]]))
        1.0
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
        raise UserError("relevant", "at least one True", "only False")
    return sum(known) / len(known)


def _check_scores(scores: Tensor) -> None:
    if scores.ndim != 2 or 0 in scores.shape:
        got = f"shape {list(scores.shape)}"
        raise UserError("scores", "a tensor [N, K] of at least one image and one class", got)
    if bool(torch.isnan(scores).any()):
        row = int(torch.isnan(scores).any(1).nonzero()[0, 0])
        raise UserError(f"scores[{row}]", "numbers", "NaN")


def _check_labels(labels: Tensor, count: int, classes: int) -> None:
    if labels.shape != (count,) or labels.dtype.is_floating_point or labels.dtype == torch.bool:
        raise UserError("labels", f"integers [{count}]", f"{labels.dtype} {list(labels.shape)}")
    invalid = ((labels < 0) | (labels >= classes)).nonzero()
    if len(invalid):
        row = int(invalid[0, 0])
        raise UserError(f"labels[{row}]", f"a class number 0..{classes - 1}", int(labels[row]))
