"""The public names of the package against docs/public_names.txt; ``--update`` rewrites the list."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path
from types import ModuleType

import sppnet

LIST = Path(__file__).parents[1] / "docs" / "public_names.txt"


def public_names() -> list[str]:
    """List the public names of all public modules, with the name of the module."""
    modules = [sppnet]
    for found in pkgutil.iter_modules(sppnet.__path__, "sppnet."):
        if not found.name.rpartition(".")[2].startswith("_"):
            modules.append(importlib.import_module(found.name))
    return sorted(f"{module.__name__}.{name}" for module in modules for name in _offered(module))


def _offered(module: ModuleType) -> list[str]:
    if hasattr(module, "__all__"):
        missing = [name for name in module.__all__ if not hasattr(module, name)]
        assert not missing, f"{module.__name__}.__all__ has names that do not exist: {', '.join(missing)}"
        return list(module.__all__)
    # The public names of a module without __all__ are those that it defines.
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]


def main(update: bool) -> int:
    names = public_names()
    if update:
        LIST.write_text("\n".join(names) + "\n", encoding="utf-8")
        print(f"{LIST.name}: {len(names)} names")
        return 0
    listed = LIST.read_text(encoding="utf-8").split() if LIST.exists() else []
    for name in sorted(set(names) - set(listed)):
        print(f"not in {LIST.name}: {name}")
    for name in sorted(set(listed) - set(names)):
        print(f"gone from the package: {name}")
    if names == listed:
        return 0
    print("If this is meant: python tests/inventory.py --update, and a line in the CHANGELOG.")
    return 1


if __name__ == "__main__":
    sys.exit(main("--update" in sys.argv[1:]))
