"""Launches of Triton kernels: the only file that uses private interfaces of Triton.

``tests/ops/test_pyramid_triton.py`` fails if one of them changes.
"""

# Triton is largely untyped.
# pyright: basic, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor


def chunks(size: int, part: int) -> int:
    """Compute ``ceil(size / part)``, faster than Triton's function."""
    return -(-size // part)


_found: dict[tuple[object, ...], tuple[Any, Any, Any]] = {}
CACHED_PLANS = 1024
"""Maximum number of cached launch plans."""


def stream_of(maps: Tensor) -> int:
    """Return the current stream of the device of the maps, for launches; 0 in the interpreter."""
    index = maps.get_device()
    return 0 if index < 0 else triton.runtime.driver.active.get_current_stream(index)


class Launch:
    """A planned launch of a kernel, for any memory of the same form.

    For small inputs, most of the time of a call is spent in Python code around launches. Planned launches are
    cached; from the second time on they skip Triton's look-up of compiled code and its hooks for profilers.
    """

    def __init__(
        self,
        kernel: Any,
        programs: int,
        rest: tuple[object, ...],
        form: tuple[object, ...],
        warps: int,
        registers: int | None = None,
    ) -> None:
        """Plan a launch.

        Args:
            kernel: the kernel, of whose integer arguments only C may be specialised.
            programs: number of programs.
            rest: the arguments of the kernel after its tensors.
            form: device, dtypes, alignments, C and constexprs, which determine the compiled code.
            warps: warps per program.
            registers: maximum number of registers per lane, on NVIDIA GPUs; None for no limit.
        """
        self._kernel, self._programs, self._rest = kernel, programs, rest
        self._key = (id(kernel), form, warps)
        self._options: dict[str, int] = {"num_warps": warps}
        if registers is not None and not torch.version.hip:
            self._options["maxnreg"] = registers
        self._run: tuple[Any, Any, Any] | None = _found.get(self._key)

    def __call__(self, stream: int, *memory: Tensor) -> None:
        """Launch the kernel on the current device and stream."""
        if self._run is not None:
            run, function, metadata = self._run
            run(self._programs, 1, 1, stream, function, metadata, None, None, None, *memory, *self._rest)
            return
        made = self._kernel[(self._programs, 1, 1)](*memory, *self._rest, **self._options)
        if made is not None:  # the interpreter returns nothing
            _found[self._key] = self._run = made.run, made.function, made.packed_metadata
