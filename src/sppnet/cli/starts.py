"""The pretrained network from which a command starts."""

from __future__ import annotations

from pathlib import Path

from sppnet.cli.flags import UsageError
from sppnet.errors import UserError

__all__ = ["start_network"]


def start_network(
    command: str, backbone: str, default: str, weights: Path | None, from_run: Path | None
) -> tuple[str, Path | None]:
    """Return the backbone's name and weights for the flags ``--backbone``, ``--weights`` and ``--from-run``.

    Weights in a run folder determine their backbone, so that ``--backbone`` is optional.

    Args:
        command: name of the command, such as ``"sppnet train detect"``, for error messages.
        backbone: value of the flag.
        default: default value of the flag.
        weights: a safetensors file or a run folder.
        from_run: a run folder.

    Raises:
        UsageError: both ``weights`` and ``from_run`` are given.
        UserError: ``from_run`` is not a run with a backbone, or has another backbone than requested.
    """
    if weights is None and from_run is None:
        return backbone, None
    if weights is not None and from_run is not None:
        raise UsageError(command, "--weights and --from-run exclude each other")
    from sppnet.backbones.weights import run_backbone  # imports torch

    if from_run is None:
        run = None if weights is None else run_backbone(weights)
        return (run.name if run is not None and backbone == default else backbone), weights
    run = run_backbone(from_run) if from_run.is_dir() else None
    if run is None:
        hint = "Choose a folder written by `sppnet train classify`."
        raise UserError(from_run, "a run folder", "no such folder, or one without model.json", hint)
    if backbone not in (default, run.name):
        raise UserError("backbone", f"{run.name}, the backbone of {from_run}", backbone, "Drop the flag.")
    return run.name, from_run
