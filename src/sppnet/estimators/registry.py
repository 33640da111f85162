"""Map the kind of a run to its estimator class."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from sppnet.errors import UserError
from sppnet.estimators.base import Estimator
from sppnet.runs import run_kind

# The classes of the package, imported on first use; other classes are subclass once they are imported.
_SHIPPED = {
    "detector": "sppnet.detect:Detector",
    "classifier": "sppnet.classify:Classifier",
    "network": "sppnet.classify:NetworkClassifier",
}


def load(folder: str | os.PathLike[str], device: str = "auto") -> Estimator[Any]:
    """Load the estimator of a run folder, of any class.

    Args:
        folder: a folder that `Estimator.save` or ``sppnet fit`` wrote.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Returns:
        The fitted estimator.

    Raises:
        UserError: the folder is not a run, or the run is damaged or of an unknown kind.

    Examples:
        >>> import sppnet
        >>> sppnet.load("nowhere")
        Traceback (most recent call last):
            ...
        sppnet.errors.UserError: nowhere: expected a run, got no such folder. Name a folder ...
    """
    run = Path(folder)
    return estimator_class(run_kind(run), run).load(run, device)


def estimator_class(kind: str, where: object) -> type[Estimator[Any]]:
    """Return the class of a kind of run.

    Raises:
        UserError: no class has this kind.
    """
    if kind in _SHIPPED:
        module, _, name = _SHIPPED[kind].partition(":")
        return cast("type[Estimator[Any]]", getattr(import_module(module), name))
    pending: list[type[Estimator[Any]]] = [Estimator]
    while pending:
        subclasses = pending.pop().__subclasses__()
        for subclass in subclasses:
            if getattr(subclass, "kind", None) == kind:
                return subclass
        pending += subclasses
    raise UserError(where, "a run of a known kind (" + ", ".join(_SHIPPED) + ")", f"kind {kind[:60]!r}")
