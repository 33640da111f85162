"""``--tile`` and ``--overlap`` for runs that were fitted with other values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sppnet.cli.flags import UsageError

if TYPE_CHECKING:
    from sppnet.estimators import Estimator

__all__ = ["use_tiles"]


def use_tiles(command: str, estimator: Estimator[Any], tile: int | None, overlap: float | None) -> None:
    """Set the options ``tile`` and ``overlap`` of an estimator; None keeps the value of the run.

    Raises:
        UsageError: the estimator has no such options.
        UserError: a value is out of range.
    """
    given = {name: value for name, value in (("tile", tile), ("overlap", overlap)) if value is not None}
    known = {name.rpartition("__")[2] for name in estimator.get_params()}
    if not known.issuperset(given):
        raise UsageError(command, "--tile is for a detector with dense windows; this is another run")
    if given:
        estimator.set_params(**given)
        estimator.check_params()
