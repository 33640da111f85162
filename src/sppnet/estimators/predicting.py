"""Prediction on one image, a list of images or an iterable."""

from __future__ import annotations

import numbers
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, TypeVar, cast

import torch

from sppnet.data import ImageSource, stable_source
from sppnet.errors import UserError, memory_errors
from sppnet.estimators.results import FailedPrediction, PredictionResult, PredictionsError

Result = TypeVar("Result", bound=PredictionResult)


class Predictor(ABC, Generic[Result]):
    """Base class of estimators: prediction on one image or on several, from `_predict_one`."""

    def predict(
        self,
        source: ImageSource | Sequence[ImageSource] | Iterator[ImageSource],
        *,
        threshold: float | None = None,
    ) -> Result | list[Result]:
        """Predict on an image or on a list of images.

        Args:
            source: a path, bytes, a binary file, a PIL image, an array or a tensor (see
                `sppnet.data.read_pixels`), or a list, tuple or iterator of them.
            threshold: smallest probability of a prediction, 0 to 1; the default of the class when None.

        Returns:
            A result, or a list of results in the order of the sources.

        Raises:
            UserError: the estimator is not fitted, ``threshold`` is out of range, or an image cannot be read.
                For a list, the error is a `PredictionsError`, whose ``results`` has the results of the other
                images.
        """
        self._check_fitted()
        check_threshold(threshold)
        if not _is_collection(source):
            return self._checked(cast("ImageSource", source), threshold)
        sources = cast("Iterable[ImageSource]", source)
        results = list(self.predict_iter(sources, threshold=threshold))
        if any(isinstance(result, FailedPrediction) for result in results):
            raise PredictionsError(results)
        return cast("list[Result]", results)

    def predict_one(self, source: ImageSource, *, threshold: float | None = None) -> Result:
        """Predict on one image.

        Args:
            source: see `predict`.
            threshold: see `predict`.

        Raises:
            UserError: the estimator is not fitted, or the image cannot be read.
        """
        self._check_fitted()
        check_threshold(threshold)
        return self._checked(source, threshold)

    def predict_iter(
        self, sources: Iterable[ImageSource], *, threshold: float | None = None
    ) -> Iterator[Result | FailedPrediction]:
        """Predict on images lazily, one by one, with bounded memory.

        Args:
            sources: any iterable, such as a generator.
            threshold: see `predict`.

        Yields:
            One result per source, in order; a `FailedPrediction` for a source that cannot be read, with the
            reason in ``error``, which is None in other results.

        Raises:
            UserError: the estimator is not fitted, or ``sources`` is not an iterable of images.
        """
        self._check_fitted()
        check_threshold(threshold)
        if not hasattr(sources, "__iter__") or isinstance(sources, (str, bytes, os.PathLike)):
            hint = "Use predict for one image."
            raise UserError("sources", "an iterable of images", type(sources).__name__, hint)
        return self._predictions(sources, threshold)

    def _predictions(
        self, sources: Iterable[ImageSource], threshold: float | None
    ) -> Iterator[Result | FailedPrediction]:
        for source in sources:
            try:
                yield self._checked(source, threshold)
            except UserError as error:
                yield FailedPrediction(source, error)
            except MemoryError as error:
                where = source if isinstance(source, (str, os.PathLike)) else "image"
                expected = "an image that fits in memory"
                yield FailedPrediction(source, UserError(where, expected, str(error) or "a larger image"))

    def _checked(self, source: ImageSource, threshold: float | None) -> Result:
        with memory_errors():
            result = self._predict_one(stable_source(source), threshold)
        if not bool(torch.isfinite(result.scores).all()):
            hint = "The run or the image has extreme values."
            raise UserError(type(self).__name__, "finite scores", "NaN or infinity", hint)
        return result

    def _check_fitted(self) -> None:
        if not hasattr(self, "names_"):
            name = type(self).__name__
            raise UserError(name, "a fitted estimator", "an unfitted estimator", "Call fit or load first.")

    @abstractmethod
    def _predict_one(self, source: ImageSource, threshold: float | None) -> Result:
        """Return the result of one image; the estimator is fitted."""


def check_threshold(threshold: float | None) -> None:
    """Check that a threshold is None or a number from 0 to 1; NaN would remove all predictions silently.

    Raises:
        UserError: the threshold is not a number from 0 to 1.

    Examples:
        >>> check_threshold(float("nan"))
        Traceback (most recent call last):
        sppnet.errors.UserError: threshold: expected a number from 0 to 1, got nan
    """
    number = isinstance(threshold, numbers.Real)
    if threshold is not None and not (number and 0 <= threshold <= 1):
        raise UserError("threshold", "a number from 0 to 1", threshold)


def _is_collection(source: object) -> bool:
    if isinstance(source, (list, tuple)):
        return True
    # A file object is an iterator, too.
    return isinstance(source, Iterator) and not hasattr(source, "read")
