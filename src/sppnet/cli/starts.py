"""The pretrained network that a command starts from."""

from __future__ import annotations

from pathlib import Path

from sppnet.cli.flags import UsageError
from sppnet.errors import UserError

__all__ = ["start_network"]


def start_network(
    command: str, backbone: str, default: str, weights: Path | None, from_run: Path | None
) -> tuple[str, Path | None]:
    """Return the backbone's name and weights for the flags ``--backbone``, ``--weights`` and ``--from-run``.

    Weights in a run folder name their backbone, so ``--backbone`` may be left out with them.

    Args:
        command: for messages, such as ``"sppnet train detect"``.
        backbone: the value of the flag.
        default: its value when it is left out.
        weights: a safetensors file or a run folder.
        from_run: a run folder.

    Raises:
        UsageError: both ``weights`` and ``from_run``.
        UserError: ``from_run`` is no run with a backbone, or one with another backbone than asked for.
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
        hint = "Name a folder that `sppnet train classify` wrote."
        raise UserError(from_run, "a run folder", "no such folder, or one without model.json", hint)
    if backbone not in (default, run.name):
        raise UserError("backbone", f"{run.name}, the backbone of {from_run}", backbone, "Drop the flag.")
    return run.name, from_run
