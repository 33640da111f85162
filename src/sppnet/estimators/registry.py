"""Which class loads which run."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from sppnet.errors import UserError
from sppnet.estimators.base import Estimator
from sppnet.runs import run_kind

# The classes of the package, imported when they are needed; others are found once they are imported.
_SHIPPED = {
    "detector": "sppnet.detect:Detector",
    "classifier": "sppnet.classify:Classifier",
    "network": "sppnet.classify:NetworkClassifier",
}


def load(folder: str | os.PathLike[str], device: str = "auto") -> Estimator[Any]:
    """Load the estimator that a run folder holds, whichever it is.

    Args:
        folder: a folder that `Estimator.save` or ``sppnet fit`` wrote.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Raises:
        UserError: no run, a damaged one, or one of an unknown kind.

    Examples:
        >>> import sppnet
        >>> sppnet.load("nowhere")
        Traceback (most recent call last):
            ...
        sppnet.errors.UserError: nowhere: expected a run, got no such folder. Name a folder ...
    """
    place = Path(folder)
    return estimator_class(run_kind(place), place).load(place, device)


def estimator_class(kind: str, where: object) -> type[Estimator[Any]]:
    """The class of a kind of run.

    Raises:
        UserError: no class has this kind.
    """
    if kind in _SHIPPED:
        module, _, name = _SHIPPED[kind].partition(":")
        return cast("type[Estimator[Any]]", getattr(import_module(module), name))
    waiting: list[type[Estimator[Any]]] = [Estimator]
    while waiting:
        below = waiting.pop().__subclasses__()
        for found in below:
            if getattr(found, "kind", None) == kind:
                return found
        waiting += below
    raise UserError(where, "a run of a known kind (" + ", ".join(_SHIPPED) + ")", f"kind {kind[:60]!r}")
