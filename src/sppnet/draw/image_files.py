"""Write images in the format of the file name extension."""

from __future__ import annotations

import io
import os
from pathlib import Path

from PIL import Image

from sppnet.errors import UserError
from sppnet.files import make_folder, write_bytes


def save_image(path: str | os.PathLike[str], image: Image.Image | bytes) -> None:
    """Write an image in the format of the file name extension; JPEG files have quality 92.

    The file is written atomically, and missing folders are created.

    Args:
        path: the file.
        image: an image, or the bytes of an image file, which are written unchanged.

    Raises:
        UserError: the extension is not that of an image format, or the format cannot store the image.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "drawn.png"
        >>> save_image(path, Image.new("RGB", (2, 2)))
        >>> Image.open(path).size
        (2, 2)
    """
    target = Path(path)
    content = image if isinstance(image, bytes) else encode_image(target, image)
    make_folder(target.parent)
    write_bytes(target, content)


def encode_image(path: str | os.PathLike[str], image: Image.Image) -> bytes:
    """Encode an image in the format of the file name extension; JPEG files have quality 92.

    Args:
        path: the file name.
        image: the image.

    Returns:
        The bytes of the file.

    Raises:
        UserError: the extension is not that of an image format, or the format cannot store the image.

    Examples:
        >>> encode_image("a.png", Image.new("RGB", (2, 2)))[1:4]
        b'PNG'
    """
    ending = Path(path).suffix
    kind = Image.registered_extensions().get(ending.lower())
    if kind is None or kind not in Image.SAVE:
        raise UserError(path, "an ending such as .jpg or .png", ending or "none")
    buffer = io.BytesIO()
    try:
        image.save(buffer, kind, **({"quality": 92} if kind == "JPEG" else {}))
    except (OSError, ValueError, KeyError) as error:  # sides over 65535 in JPEG, a format without a writer
        raise UserError(path, f"an image that {kind} can store", str(error) or image.mode) from error
    return buffer.getvalue()
