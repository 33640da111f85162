"""Save a result as a drawn image or as JSON, but never over its source image."""

from __future__ import annotations

import io
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sppnet.draw import save_image
from sppnet.errors import UserError
from sppnet.files import make_folder, write_text

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["DrawnResult", "save_result"]


class DrawnResult(ABC):
    """Base class of results that can be drawn: saving and display in notebooks.

    Attributes:
        source: the source of the result.
    """

    source: Any

    @abstractmethod
    def plot(self) -> Image:
        """Return the image with the predictions drawn on it."""

    @abstractmethod
    def to_dict(self) -> dict[str, object]:
        """Return the predictions in JSON types."""

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the drawn image or, where the path ends in ``.json``, `to_dict`; return the path.

        Raises:
            UserError: the path is the image itself, has no ending of an image, or cannot be written.
        """
        return save_result(path, self.source, self.plot, self.to_dict)

    def _repr_png_(self) -> bytes:
        """Return the drawn image for notebooks."""
        stream = io.BytesIO()
        self.plot().save(stream, "PNG")
        return stream.getvalue()


def save_result(
    path: str | os.PathLike[str],
    source: object,
    plot: Callable[[], Image],
    content: Callable[[], Mapping[str, object]],
) -> Path:
    """Write a result as a drawn image or, where the path ends in ``.json``, as JSON.

    Args:
        path: the file to write.
        source: the source of the result; a path may not be overwritten.
        plot: draws the image.
        content: returns the content of the JSON file.

    Returns:
        The path.

    Raises:
        UserError: the path is the source image, has no image extension, or cannot be written.

    Examples:
        >>> path = getfixture("tmp_path") / "a.json"
        >>> _ = save_result(path, "a.jpg", lambda: None, lambda: {"classes": []})
        >>> json.loads(path.read_text())
        {'classes': []}
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
    """Refuse to write over the source image, under any name or link.

    Raises:
        UserError: ``target`` is ``source``.
    """
    if not isinstance(source, (str, os.PathLike)):
        return
    try:
        same = os.path.samefile(target, Path(source))
    except OSError:  # one of them does not exist or cannot be examined
        return
    if same:
        raise UserError(target, "another file than the source image", "the same file", "Choose another name.")
