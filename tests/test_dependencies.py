"""Every third-party package that the source imports is declared in pyproject.toml."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Modules whose distribution has another name.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "cv2": "opencv-contrib-python-headless",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
# Parts of the type checker's own library, imported for type checking only.
TYPING_ONLY = {"_typeshed"}
# torch brings triton with its GPU builds; the package works without it.
WITH_TORCH = {"triton"}


def imported(source: str) -> set[str]:
    """Top-level names of all absolute imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
    return names


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"]]
    for extra, wanted in project["optional-dependencies"].items():
        lines += [] if extra == "dev" else wanted
    return {normal(re.match(r"[A-Za-z0-9._-]+", line)[0]) for line in lines}


def undeclared(names: set[str], known: set[str]) -> set[str]:
    ours = {"sppnet"} | TYPING_ONLY | WITH_TORCH | set(sys.stdlib_module_names)
    return {name for name in names - ours if normal(DISTRIBUTIONS.get(name, name)) not in known}


def test_every_import_is_declared() -> None:
    found = {
        str(path.relative_to(ROOT)): missing
        for path in sorted((ROOT / "src").rglob("*.py"))
        if (missing := undeclared(imported(path.read_text(encoding="utf-8")), declared()))
    }
    assert not found


def test_an_undeclared_import_is_seen() -> None:
    source = "def f():\n    import scipy.io\n    from os import path\n    from PIL import Image\n"
    assert undeclared(imported(source), declared() - {"scipy"}) == {"scipy"}
