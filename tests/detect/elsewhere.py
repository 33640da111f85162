"""A pretended device, for machines without a GPU: its numbers are the CPU's, but mix with them no more."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

# A kind of torch's own that no build starts, and for which nothing is compiled.
DEVICE = torch.device("lazy", 0)


class _There(Tensor):
    """A tensor that says it is on `DEVICE`."""

    inner: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor) -> Any:
        # torch's types do not know this part of torch.
        return Tensor._make_wrapper_subclass(  # pyright: ignore[reportAttributeAccessIssue]
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
            requires_grad=inner.requires_grad,
        )

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner.detach()

    def tolist(self) -> Any:
        return self.inner.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class Pretended(TorchDispatchMode):
    """Within it, `DEVICE` can be computed on, by the thread that entered it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _is_there(device: torch.device | str) -> bool:
    return torch.device(device).type == DEVICE.type


def _inner(tree: Any) -> Any:
    return tree_map(lambda one: one.inner if isinstance(one, _There) else one, tree)


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    name = str(func)
    flat, _ = tree_flatten((args, kwargs))
    mine = [one for one in flat if isinstance(one, _There)]
    if name.startswith("aten.to.") or "_to_copy" in name:
        return _moved(args, kwargs, bool(mine))
    if "aten.copy_" in name:
        func(*_inner(args), **kwargs)
        return args[0]
    indexed = ("aten.index.Tensor" in name or "index_put" in name) and isinstance(args[0], _There)
    if mine and not indexed and "sppnet" not in name:
        for one in flat:
            if isinstance(one, Tensor) and not isinstance(one, _There) and one.ndim:
                raise RuntimeError(f"{name}: tensors of two devices")
    there = _is_there(kwargs["device"]) if kwargs.get("device") is not None else bool(mine)
    if kwargs.get("device") is not None:
        kwargs = {**kwargs, "device": "cpu"}

    def outer(one: Any) -> Any:
        if not isinstance(one, Tensor):
            return one
        # What was changed in place is given back as it came.
        same = [given for given in mine if given.inner is one]
        return same[0] if same else _There(one)

    made = func(*_inner(args), **_inner(kwargs))
    return tree_map(outer, made) if there else made


def _moved(args: tuple[Any, ...], kwargs: dict[str, Any], there: bool) -> Tensor:
    given = [*args[1:], *kwargs.values()]
    places = [one for one in given if isinstance(one, (torch.device, str))]
    types = [one for one in given if isinstance(one, torch.dtype)]
    there = _is_there(places[0]) if places else there
    inner = _inner(args[0])
    made = inner.to(types[0]) if types else inner
    if made is inner and there == isinstance(args[0], _There):
        return args[0]
    return _There(made) if there else made.clone()
