"""Import the names of a package on first use, because importing torch takes seconds."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module

__all__ = ["lazy_names"]


def lazy_names(package: str, modules: Mapping[str, str]) -> Callable[[str], object]:
    """Return the ``__getattr__`` of a package whose names are imported on first use.

    Args:
        package: the package's ``__name__``.
        modules: the defining module of each name.

    Returns:
        A function from a name to its value, which raises AttributeError for an unknown name.

    Examples:
        >>> lazy_names("sppnet", {"UserError": "sppnet.errors"})("UserError").__name__
        'UserError'
    """

    def find(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value: object = getattr(import_module(modules[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return find
