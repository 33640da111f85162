"""Names of a package that are imported when they are asked for: torch takes seconds to import."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module

__all__ = ["lazy_names"]


def lazy_names(package: str, homes: Mapping[str, str]) -> Callable[[str], object]:
    """The ``__getattr__`` of a package whose names live in modules that are imported on demand.

    Args:
        package: the package's ``__name__``.
        homes: by name, the module that defines it.

    Examples:
        >>> lazy_names("sppnet", {"UserError": "sppnet.errors"})("UserError").__name__
        'UserError'
    """

    def find(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found: object = getattr(import_module(homes[name]), name)
        setattr(sys.modules[package], name, found)
        return found

    return find
