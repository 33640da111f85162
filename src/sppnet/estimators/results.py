"""What a prediction yields for a source that cannot be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sppnet.errors import UserError

_LISTED = 10  # further messages would hide these


@dataclass(frozen=True)
class FailedPrediction:
    """Stands in for the result of a source that cannot be read.

    Attributes:
        source: the source as it was given.
        error: what is wrong with it.

    Examples:
        >>> FailedPrediction("a.jpg", UserError("a.jpg", "an image", "no such file")).to_dict()
        {'error': 'a.jpg: expected an image, got no such file'}
    """

    source: object
    error: UserError

    def to_dict(self) -> dict[str, object]:
        """``{"error": message}``, as JSON takes it."""
        return {"error": str(self.error)}


class PredictionsError(UserError):
    """Some sources of a list could not be read; the others' results are kept.

    Args:
        results: one per source, in their order; `FailedPrediction` for those that could not be read.

    Attributes:
        results: as given.

    Examples:
        >>> bad = FailedPrediction("a.jpg", UserError("a.jpg", "an image", "no such file"))
        >>> PredictionsError([bad]).got
        '1 of 1 that cannot: a.jpg: expected an image, got no such file'
    """

    def __init__(self, results: Sequence[object]) -> None:
        self.results = list(results)
        failed = [result for result in results if isinstance(result, FailedPrediction)]
        listed = "; ".join(str(result.error) for result in failed[:_LISTED])
        if len(failed) > _LISTED:
            listed += f"; and {len(failed) - _LISTED} more"
        got = f"{len(failed)} of {len(results)} that cannot: {listed}"
        hint = "The error's `results` has the others; predict_iter yields them one by one."
        super().__init__("sources", "images that can be read", got, hint)
