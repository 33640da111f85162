"""Results of sources that cannot be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sppnet.errors import UserError

_LISTED = 10  # messages in one error


@dataclass(frozen=True)
class FailedPrediction:
    """The result of a source that cannot be read.

    Attributes:
        source: the source.
        error: the reason.

    Examples:
        >>> FailedPrediction("a.jpg", UserError("a.jpg", "an image", "no such file")).to_dict()
        {'error': 'a.jpg: expected an image, got no such file'}
    """

    source: object
    error: UserError

    def to_dict(self) -> dict[str, object]:
        """Return ``{"error": message}``, in JSON types."""
        return {"error": str(self.error)}


class PredictionsError(UserError):
    """Some sources of a list could not be read; ``results`` has the results of the others.

    Args:
        results: one per source, in order; a `FailedPrediction` for each source that could not be read.

    Attributes:
        results: the argument, as a list.

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
        hint = (
            "The attribute `results` of the error has the other results; predict_iter yields them one by one."
        )
        super().__init__("sources", "images that can be read", got, hint)
