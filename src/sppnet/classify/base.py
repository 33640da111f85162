"""The base class of the classifiers: evaluation on labelled images."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sppnet.classify.result import ClassificationResult
from sppnet.data import classification_to_measure
from sppnet.estimators import Estimator
from sppnet.evaluate import classification_metrics
from sppnet.structures import ClassificationSet


class ImageClassifier(Estimator[ClassificationResult]):
    """Base class of classifiers, which implement `_scores` instead of `evaluate`."""

    @abstractmethod
    def _scores(self, paths: Sequence[Path], *, quiet: bool) -> Tensor:
        """Compute scores or probabilities ``[N, K]`` of images, as `predict` does."""

    def evaluate(
        self,
        data: str | os.PathLike[str] | ClassificationSet,
        split: str | None = None,
        *,
        layout: str | None = None,
        skip_bad: bool = False,
        quiet: bool = False,
    ) -> dict[str, Any]:
        """Evaluate on labelled images.

        If `fit` divided a data set without splits, the held-out images are evaluated.

        Args:
            data: images whose classes are among those of the classifier, or a data set object.
            split: the split to evaluate on; the validation or test split when None.
            layout: the layout of the data; detected automatically when None.
            skip_bad: skip damaged images; otherwise an error lists all of them.
            quiet: show no progress bars.

        Returns:
            The result of `sppnet.evaluate.classification_metrics` ("accuracy", "mean_class_accuracy", "top5",
            "per_class", ...), "held_out" (whether held-out images are evaluated), "trained_on" (number of
            evaluated images that were fitted on; None if unknown) and "notes" (a list of sentences).

        Raises:
            UserError: the classifier is not fitted, or the data are invalid.
        """
        self._check_fitted()
        dataset, facts = self.to_measure(data, split, layout=layout, skip_bad=skip_bad)
        scores = self._scores([item.path for item in dataset.items], quiet=quiet)
        labels = torch.tensor([item.label for item in dataset.items])
        metrics = classification_metrics(scores, labels, self.names_)
        return {**metrics, **facts, "notes": list(dataset.notes)}

    def to_measure(
        self,
        data: str | os.PathLike[str] | ClassificationSet,
        split: str | None = None,
        *,
        layout: str | None = None,
        skip_bad: bool = False,
    ) -> tuple[ClassificationSet, dict[str, object]]:
        """Return the images that `evaluate` uses, and its "held_out" and "trained_on".

        Args:
            data: as for `evaluate`.
            split: as for `evaluate`.
            layout: as for `evaluate`.
            skip_bad: as for `evaluate`.

        Raises:
            UserError: the classifier is not fitted, or the data are invalid.
        """
        self._check_fitted()
        return classification_to_measure(data, split, layout, self.names_, self.fitted_on_, skip_bad=skip_bad)
