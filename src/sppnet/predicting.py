"""Predicting on one image, a list or any iterable: one bad source does not lose the results of the others."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from sppnet.data import ImageSource, stable_source
from sppnet.errors import UserError

__all__ = ["FailedSource", "SourcesError", "predict_each", "predict_sources"]

Result = TypeVar("Result")


@dataclass(frozen=True)
class FailedSource:
    """What `predict_iter` yields for a source that cannot be read.

    Attributes:
        source: the source as it was given.
        error: why there is no result; ``error`` is None in every result.

    Examples:
        >>> FailedSource("a.jpg", UserError("a.jpg", "an image", "no such file")).error.got
        'no such file'
    """

    source: object
    error: UserError


class SourcesError(UserError, Generic[Result]):
    """Some sources of a list could not be read; all others were predicted.

    Attributes:
        results: one for each source in order; None where it failed.
        errors: the error of each failed source, by its position.

    Examples:
        >>> error = SourcesError([1, None], {1: UserError("b.jpg", "an image", "no such file")})
        >>> error.results, list(error.errors)
        ([1, None], [1])
    """

    def __init__(self, results: list[Result | None], errors: dict[int, UserError]) -> None:
        self.results = results
        self.errors = errors
        listed = "; ".join(f"[{position}] {error}" for position, error in errors.items())
        todo = "The other results are in the error's results; predict_iter raises no error"
        super().__init__("sources", "images that can be read", f"{len(errors)} that cannot: {listed}", todo)


def predict_sources(
    predict_one: Callable[[ImageSource], Result],
    source: ImageSource | Sequence[ImageSource] | Iterator[ImageSource],
) -> Result | list[Result]:
    """The result of one source, or those of a list, tuple or iterator.

    Raises:
        UserError: one source that cannot be read.
        SourcesError: sources of several that cannot be read, after all others were predicted.

    Examples:
        >>> from sppnet.data import read_pixels
        >>> import numpy as np
        >>> predict_sources(lambda image: read_pixels(image).shape, [np.zeros((2, 3), np.uint8)])
        [(2, 3, 3)]
    """
    if not _is_several(source):
        return predict_one(stable_source(cast("ImageSource", source)))
    results: list[Result | None] = []
    errors: dict[int, UserError] = {}
    for found in predict_each(predict_one, cast("Iterable[ImageSource]", source)):
        if isinstance(found, FailedSource):
            errors[len(results)] = found.error
            results.append(None)
        else:
            results.append(found)
    if errors:
        raise SourcesError(results, errors)
    return cast("list[Result]", results)


def predict_each(
    predict_one: Callable[[ImageSource], Result], sources: Iterable[ImageSource]
) -> Iterator[Result | FailedSource]:
    """Yield a result or a `FailedSource` for every source, in order; nothing is kept in memory.

    Examples:
        >>> from sppnet.data import read_pixels
        >>> [found] = predict_each(read_pixels, ["missing.jpg"])
        >>> print(found.error)
        missing.jpg: expected an image, got no such file
    """
    if not hasattr(sources, "__iter__") or isinstance(sources, (str, bytes, os.PathLike)):
        hint = "Use predict for one image"
        raise UserError("sources", "an iterable of images", type(sources).__name__, hint)
    for source in sources:
        try:
            yield predict_one(stable_source(source))
        except UserError as error:
            yield FailedSource(source, error)
        except MemoryError as error:
            where = source if isinstance(source, (str, os.PathLike)) else "image"
            wanted = "an image that fits in memory"
            yield FailedSource(source, UserError(where, wanted, str(error) or "a larger one"))


def _is_several(source: Any) -> bool:
    if isinstance(source, (list, tuple)):
        return True
    # A file object is an iterator too.
    return isinstance(source, Iterator) and not hasattr(source, "read")
