"""Functions compiled into the kernel that calls them: the only file that uses private interfaces of numba.

``tests/ops/test_private_apis.py`` fails when one of them changes.

Numba's own compiled functions are optimised and turned into machine code each by itself, and again inside
every caller. A part is only translated by itself: its code joins the caller's module, which is optimised
once. That and frames in one piece (`in_one_chunk`) take a third from the time that a first call waits.
"""

# What is here is run by numba's compiler, whose types basedpyright cannot follow.
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

# Numba sets these attributes from the environment; no checker knows them.
_settings: Any = config

# For each module of machine code in the making, what it holds: descriptions by function and types.
_made: WeakKeyDictionary[Any, dict[tuple[Callable[..., Any], Any], Any]] = WeakKeyDictionary()


def has(context, feature: str) -> bool:
    """Whether the processor has an extension, as LLVM names it."""
    return f"+{feature}" in context.codegen().magic_tuple()[2].split(",")


def _translated(context, function: Callable[..., Any], sig) -> Any:
    """The description of ``function`` for the types of ``sig``, after it has joined the caller's module."""
    module = context.active_code_library
    made = _made.setdefault(module, {})
    key = function, sig.args
    if key not in made:
        flags = ConfigStack().top().copy()
        flags.no_compile = flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
        # The whole is optimised, so its parts need not be. The lock of numba's compiler is held meanwhile.
        level, _settings.OPT = _settings.OPT, type(_settings.OPT)(0)
        try:
            done = compiler.compile_internal(
                context.typing_context, context, module, function, sig.args, sig.return_type, flags, {}
            )
        finally:
            _settings.OPT = level
        # A function that is inlined into all its callers is dropped.
        module.get_function(done.fndesc.mangled_name).linkage = "linkonce_odr"
        made[key] = done.fndesc
    return made[key]


def part_giving(kind: Any) -> Callable[[Callable[..., Any]], Any]:
    """A part of kernels that returns a value of numba's type ``kind``; it raises nothing."""

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
    """``function`` with room for all frames of what it calls.

    CPython keeps frames in chunks of 16 KiB and maps a chunk anew at each call that crosses the end of one:
    with some depths of calls a compiler does so ten thousand times. A frame of 256 KiB gets a chunk of 512.
    """
    function.__code__ = function.__code__.replace(co_stacksize=1 << 15)
    return function
