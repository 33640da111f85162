"""Results of predictions: what both types share, and what stands for a source that cannot be read."""

from __future__ import annotations

import importlib
import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self, SupportsIndex, cast

import torch
from torch import Tensor

from sppnet.data import ImageSource, image_id_of_name
from sppnet.errors import MissingExtraError, UserError
from sppnet.saving import DrawnResult
from sppnet.structures import ImageSize

if TYPE_CHECKING:
    from PIL.Image import Image

_LISTED = 10  # further messages would hide these
_DRAWN_SIDE = 1024


class PredictionResult(DrawnResult):
    """Predictions of one image, best first: a sequence that can be sliced, compared, merged and converted.

    Letters: N predictions.

    Attributes:
        entries: key of the list of predictions in `to_dict`.
        source: the image as it was given.
        error: always None; a `FailedPrediction` has one.
    """

    entries: ClassVar[str]
    error: ClassVar[None] = None
    source: ImageSource
    __hash__ = None  # pyright: ignore[reportAssignmentType]

    if TYPE_CHECKING:
        # Fields of one subclass, properties of the other; a property here would be a field's default.
        @property
        def names(self) -> tuple[str, ...]:
            """Class names of the estimator."""
            ...

        @property
        def labels(self) -> Tensor:
            """int64 ``[N]``, positions in ``names``."""
            ...

        @property
        def scores(self) -> Tensor:
            """float32 ``[N]``, probabilities, descending."""
            ...

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Self]:
        """Iterate over the predictions, each as a result of length 1."""
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: SupportsIndex | slice | Tensor | Sequence[int] | Sequence[bool]) -> Self:
        """Return the predictions that an index, a slice, a mask or several indices select.

        Raises:
            IndexError: an index out of range.
        """
        if isinstance(index, slice):
            return self._select(torch.tensor(range(len(self))[index], dtype=torch.int64))
        if isinstance(index, SupportsIndex) and not isinstance(index, Tensor):
            return self._select(torch.tensor([range(len(self))[index]]))
        chosen = torch.as_tensor(index)
        if chosen.dtype != torch.bool:
            chosen = chosen.to(torch.int64).reshape(-1)
        return self._select(chosen)

    def __eq__(self, other: object) -> bool:
        """Return whether type, class names and all predictions are equal; the source is ignored."""
        if type(other) is not type(self):
            return NotImplemented
        mine, theirs = self._columns(), other._columns()
        return self._context() == other._context() and all(torch.equal(mine[k], theirs[k]) for k in mine)

    def __add__(self, other: Self) -> Self:
        """Return `merge`."""
        return self.merge(other)

    def merge(self, *others: Self) -> Self:
        """Merge the predictions of several results of one image, best first.

        All detections remain. For classification results, the highest score of each class is used.

        Raises:
            UserError: the results have other image sizes or class names.
        """
        for other in others:
            if type(other) is not type(self) or self._context() != other._context():
                expected = "results of one image with the same class names"
                raise UserError(type(self).__name__, expected, "others")
        every = [one._columns() for one in (self, *others)]
        columns = {name: torch.cat([one[name] for one in every]) for name in every[0]}
        order = self._merge_order(columns)
        return self._replaced({name: values[order] for name, values in columns.items()})

    def _merge_order(self, columns: Mapping[str, Tensor]) -> Tensor:
        """Return the positions of the predictions that a merge keeps, best first."""
        return torch.sort(columns["scores"], descending=True, stable=True).indices

    def _select(self, index: Tensor) -> Self:
        return self._replaced({name: values[index] for name, values in self._columns().items()})

    @abstractmethod
    def _replaced(self, columns: Mapping[str, Tensor]) -> Self:
        """Return a result of the same image with other `_columns`."""

    @abstractmethod
    def _columns(self) -> dict[str, Tensor]:
        """Return the values of all predictions, one entry per prediction."""

    @abstractmethod
    def _context(self) -> tuple[object, ...]:
        """Return the values that must be equal in results that are merged: image size and class names."""

    @abstractmethod
    def report_image(self, item: Any, names: Sequence[str]) -> tuple[Image, str]:
        """Draw the predictions and the truth, and return a caption too.

        Args:
            item: the image and its truth, from the evaluated data set.
            names: class names of the data set.
        """

    @abstractmethod
    def to_dict(self) -> dict[str, object]:
        """Return the predictions, rounded, for JSON."""

    def to_record(self) -> dict[str, object]:
        """Return `to_dict` with additional unrounded values, if it rounds."""
        return self.to_dict()

    @abstractmethod
    def to_coco(self, image_id: int | str | None = None) -> list[dict[str, object]]:
        """Return the predictions as COCO results."""

    @abstractmethod
    def to_supervision(self) -> Any:
        """Return the predictions as an object of the package supervision."""

    def to_pandas(self) -> Any:
        """Return a data frame with one row per prediction and a column for each of its values.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        pandas = optional_module("pandas", "pandas", "results as data frames")
        columns: dict[str, Any] = {}
        for name, values in self._columns().items():
            if values.ndim == 2:
                columns |= {
                    f"{axis}": values[:, i].numpy() for i, axis in enumerate(("x0", "y0", "x1", "y1"))
                }
            else:
                columns[name] = values.numpy()
        columns["name"] = [self.names[label] for label in self.labels.tolist()]
        return pandas.DataFrame(columns)

    def _image_id(self, image_id: int | str | None) -> int | str:
        if image_id is not None:
            return image_id
        if not isinstance(self.source, (str, os.PathLike)):
            raise UserError("image_id", "the id of an image in memory", "none")
        return image_id_of_name(self.source)


def drawn_size(size: ImageSize) -> ImageSize:
    """Return the size from which a large image is drawn; its sides are at least twice this."""
    return ImageSize(min(size.height, _DRAWN_SIDE), min(size.width, _DRAWN_SIDE))


def record_entries(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the predictions in what `PredictionResult.to_dict` gave, of whichever type.

    Examples:
        >>> record_entries({"path": "a.jpg", "classes": [{"label": 0, "name": "cat", "score": 0.9}]})
        [{'label': 0, 'name': 'cat', 'score': 0.9}]
    """
    key = next(key for key in ("detections", "classes") if key in record)
    return cast("list[dict[str, Any]]", record[key])


def optional_module(package: str, extra: str, job: str) -> Any:
    """Import an optional package.

    Raises:
        MissingExtraError: it is not installed.

    Examples:
        >>> optional_module("nowhere", "pandas", "results as data frames")
        Traceback (most recent call last):
            ...
        sppnet.errors.MissingExtraError: results as data frames: expected the package nowhere, got none ...
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingExtraError(package, extra, job) from error


@dataclass(frozen=True)
class FailedPrediction:
    """The result of a source that cannot be read.

    Attributes:
        source: the source as it was given.
        error: the error.

    Examples:
        >>> FailedPrediction("a.jpg", UserError("a.jpg", "an image", "no such file")).to_dict()
        {'error': 'a.jpg: expected an image, got no such file'}
    """

    source: object
    error: UserError

    def to_dict(self) -> dict[str, object]:
        """Return ``{"error": message}`` for JSON."""
        return {"error": str(self.error)}


class PredictionsError(UserError):
    """Error of sources in a list that cannot be read, with the results of the others.

    Args:
        results: one per source, in their order; `FailedPrediction` for those that could not be read.

    Attributes:
        results: as given.

    Examples:
        >>> bad = FailedPrediction("a.jpg", UserError("a.jpg", "an image", "no such file"))
        >>> PredictionsError([bad]).got
        '1 of 1 that cannot be read: a.jpg: expected an image, got no such file'
    """

    def __init__(self, results: Sequence[object]) -> None:
        self.results = list(results)
        failed = [result for result in results if isinstance(result, FailedPrediction)]
        listed = "; ".join(str(result.error) for result in failed[:_LISTED])
        if len(failed) > _LISTED:
            listed += f"; and {len(failed) - _LISTED} more"
        got = f"{len(failed)} of {len(results)} that cannot be read: {listed}"
        hint = "The error's `results` has the others; predict_iter yields them one by one."
        super().__init__("sources", "images that can be read", got, hint)
