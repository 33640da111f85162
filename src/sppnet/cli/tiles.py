"""``--tile`` and ``--overlap`` for runs that were fitted with other values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sppnet.cli.flags import UsageError

if TYPE_CHECKING:
    from sppnet.estimators import Estimator

__all__ = ["use_tiles"]


def use_tiles(command: str, estimator: Estimator[Any], tile: int | None, overlap: float | None) -> None:
    """Have a detector cut images into tiles of this side; None leaves what the run says.

    Raises:
        UsageError: the estimator is no `Detector`.
        UserError: a value out of its range.
    """
    from sppnet.detect import Detector

    if tile is None and overlap is None:
        return
    if not isinstance(estimator, Detector):
        raise UsageError(command, "--tile is for a detector with dense windows; this is another run")
    given = {name: value for name, value in (("tile", tile), ("overlap", overlap)) if value is not None}
    options = estimator.options.replace(**given)
    options.check()
    estimator.options = options
