"""Saving a result as a drawn image or as JSON, never over the image that it came from."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sppnet.draw import save_image
from sppnet.errors import UserError
from sppnet.files import make_folder, write_text

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["save_result"]


def save_result(
    path: str | os.PathLike[str],
    source: object,
    plot: Callable[[], Image],
    content: Callable[[], Mapping[str, object]],
) -> Path:
    """Write the drawn image or, where the path ends in ``.json``, the content; returns the path.

    Raises:
        UserError: the path is the source of the result, has no ending of an image, or cannot be written.
    """
    target = Path(path)
    _check_not_source(target, source)
    if target.suffix.lower() == ".json":
        make_folder(target.parent)
        write_text(target, json.dumps(content(), indent=2, ensure_ascii=False) + "\n")
    else:
        save_image(target, plot())
    return target


def _check_not_source(target: Path, source: object) -> None:
    """Refuse to write over the image that a result came from, by whatever name or link it is called.

    Raises:
        UserError: ``target`` is ``source``.
    """
    if not isinstance(source, (str, os.PathLike)):
        return
    try:
        same = os.path.samefile(target, Path(source))
    except OSError:  # one of them does not exist, or cannot be looked at: it is not the same file
        return
    if same:
        raise UserError(target, "another file than the image itself", "the same file", "Choose another name")
