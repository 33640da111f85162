"""Weights from safetensors files, local or downloaded. Nothing here ever reads a pickle."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor, nn

from sppnet.errors import UserError


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, floating ones as float32.

    Raises:
        UserError: no such file, another kind of file, or a damaged one.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise UserError(path, "a .safetensors file", "no such file")
    if path.suffix != ".safetensors":
        raise UserError(
            path,
            "weights in a .safetensors file, which cannot carry code",
            f"a {path.suffix or 'nameless'} file",
            "Convert it once, where you trust it: safetensors.torch.save_file(torch.load(FILE, "
            "weights_only=True), 'weights.safetensors')",
        )
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise UserError(path, "a whole .safetensors file", str(error)) from error
    return {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}


def read_normalisation(path: Path) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and deviation of the images that weights were trained on, where their file says so.

    The ``model.safetensors`` of a run of ``sppnet train classify`` does: a network that started with
    ``--start he`` is worth nothing under the normalisation that its architecture has by default.

    Raises:
        UserError: values that no normalisation has.
    """
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        names = set(file.keys())
        if not {"backbone.mean", "backbone.std"} <= names:
            return None
        mean, std = (file.get_tensor(name).flatten().tolist() for name in ("backbone.mean", "backbone.std"))
    if not len(mean) == len(std) == 3 or not all(1e-6 < value < 1e6 for value in std):
        raise UserError(path, "a mean and a deviation above 0 of three colours", f"{mean} and {std}")
    return tuple(mean), tuple(std)


def _given_name(name: str, given: dict[str, Tensor]) -> str:
    """The name of a parameter in a file: timm's feature networks join two levels into one."""
    if name in given:
        return name
    bare = name.removeprefix("model.")
    return bare if bare in given else re.sub(r"_(\d+)(?=\.)", r".\1", bare, count=1)


def fill(net: nn.Module, given: dict[str, Tensor], where: object) -> None:
    """Copy weights into a network; what the network lacks, such as a classifier, is ignored.

    Args:
        net: filled in place.
        given: tensors under the names that torchvision or timm uses.
        where: the file, for messages.

    Raises:
        UserError: a tensor that the network needs is missing or of another shape; names the first.
    """
    state = net.state_dict()
    found: dict[str, Tensor] = {}
    for name, old in state.items():
        theirs = _given_name(name, given)
        if theirs not in given:
            if name.endswith("num_batches_tracked"):
                continue
            kept = ", ".join(list(given)[:3])
            raise UserError(
                where, f"the tensor {name} {list(old.shape)}", f"a file without it (it has {kept}, ...)"
            )
        if given[theirs].shape != old.shape:
            raise UserError(where, f"{name} of shape {list(old.shape)}", f"shape {list(given[theirs].shape)}")
        found[name] = given[theirs].to(old.dtype)
    with torch.no_grad():
        for name, old in state.items():
            if name in found:
                old.copy_(found[name])


def download(repository: str, name: str) -> Path:
    """The ``model.safetensors`` of a Hugging Face repository, from the local cache when it is there.

    Raises:
        UserError: no connection, or no such file; tells to pass local weights.
    """
    import huggingface_hub as hub

    kept = hub.try_to_load_from_cache(repository, "model.safetensors")
    if isinstance(kept, str):
        return Path(kept)
    try:
        # One question first: the download itself asks again for half a minute where there is no connection.
        hub.get_hf_file_metadata(hub.hf_hub_url(repository, "model.safetensors"), timeout=10)
        return Path(hub.hf_hub_download(repository, "model.safetensors"))
    except Exception as error:  # the HTTP client's own classes, which change between versions
        first_line = (str(error).strip().splitlines() or [""])[0]
        got = f"{type(error).__name__} ({first_line})"
        todo = "Pass local weights with --weights FILE.safetensors, or take --backbone builtin"
        raise UserError(name, f"its weights from huggingface.co/{repository}", got, todo) from error
