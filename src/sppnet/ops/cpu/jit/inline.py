"""Functions that are inlined into kernels: the only file that uses private interfaces of numba.

``tests/ops/test_private_apis.py`` fails if one of them changes.

Numba optimises and compiles each of its functions separately, and again inside every caller. A part of a
kernel is only translated: its code is linked into the module of the caller, which is optimised once. This and
frames in one chunk (`in_one_chunk`) reduce the time of a first call by a third.
"""

# This code is compiled by numba, whose types basedpyright cannot infer.
# pyright: basic

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from numba import types
from numba.core import cgutils, compiler, config
from numba.core.targetconfig import ConfigStack
from numba.extending import intrinsic

__all__ = ["cgutils", "has", "in_one_chunk", "part", "part_giving"]

Function = TypeVar("Function", bound=Callable[..., Any])

# Numba sets these attributes from the environment, so that type checkers do not find them.
_settings: Any = config

# The parts in each module under compilation: descriptions by function and types.
_made: WeakKeyDictionary[Any, dict[tuple[Callable[..., Any], Any], Any]] = WeakKeyDictionary()


def has(context, feature: str) -> bool:
    """Return whether the processor has an extension, by its name in LLVM."""
    return f"+{feature}" in context.codegen().magic_tuple()[2].split(",")


def _translated(context, function: Callable[..., Any], sig) -> Any:
    """Link ``function`` for the types of ``sig`` into the module of the caller; return its description."""
    module = context.active_code_library
    made = _made.setdefault(module, {})
    key = function, sig.args
    if key not in made:
        flags = ConfigStack().top().copy()
        flags.no_compile = flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
        # Parts are not optimised, because the whole module is. The lock of numba's compiler is held.
        level, _settings.OPT = _settings.OPT, type(_settings.OPT)(0)
        try:
            done = compiler.compile_internal(
                context.typing_context, context, module, function, sig.args, sig.return_type, flags, {}
            )
        finally:
            _settings.OPT = level
        # A function that is inlined into all its callers is removed.
        module.get_function(done.fndesc.mangled_name).linkage = "linkonce_odr"
        made[key] = done.fndesc
    return made[key]


def part_giving(kind: Any) -> Callable[[Callable[..., Any]], Any]:
    """Define a part of kernels that returns a value of numba's type ``kind`` and does not raise."""

    def decorate(function: Callable[..., Any]) -> Any:
        def typed(typingctx, *args):
            def codegen(context, builder, sig, values):
                return context.call_internal(builder, _translated(context, function, sig), sig, values)

            return kind(*args), codegen

        own = inspect.signature(function)
        context = inspect.Parameter("typingctx", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        typed.__name__, typed.__doc__ = function.__name__, function.__doc__
        typed.__signature__ = own.replace(parameters=[context, *own.parameters.values()])
        return intrinsic(typed)

    return decorate


part = part_giving(types.none)


def in_one_chunk(function: Function) -> Function:
    """Wrap ``function`` so that the frames of all its callees are in one chunk of memory.

    CPython allocates frames in chunks of 16 KiB and maps a new chunk at each call that crosses the end of
    one, which can happen ten thousand times in a compiler. A frame of 256 KiB gets a chunk of 512 KiB.
    """
    function.__code__ = function.__code__.replace(co_stacksize=1 << 15)
    return function
