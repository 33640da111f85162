"""Where the files of a VOC data set lie: VOC's own folders, ``images`` and ``annotations``, or all in one."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from sppnet.data.images import IMAGE_ENDINGS
from sppnet.data.splits import WHOLE, split_folders
from sppnet.errors import UserError
from sppnet.inputs.paths import files_under, files_with, folders_in
from sppnet.inputs.text import read_bytes, text_lines

_ANNOTATIONS = ("annotations", "annotation", "xmls", "xml", "labels")
_LOOKED_AT = 50  # annotations that are opened to see what they are
_IMAGES = ("jpegimages", "images", "image", "imgs", "img")


@dataclass(frozen=True)
class VocPart:
    """A folder of annotations and the one of their images, which may be the same."""

    annotations: Path
    images: Path


@dataclass(frozen=True)
class VocHome:
    """A VOC data set.

    Attributes:
        root: the folder of ``Annotations``.
        parts: the folders of each split; of `WHOLE` where lists divide it, or nothing does.
        lists: the files of ``ImageSets/Main`` by split.
    """

    root: Path
    parts: dict[str, VocPart]
    lists: dict[str, Path] = field(default_factory=dict[str, Path])


def voc_homes(root: Path) -> list[VocHome]:
    """The VOC data sets at ``root``, in it or in its ``VOCdevkit``; several are ambiguous."""
    if not root.is_dir():
        return []
    own = _own_folders(root)
    if own is not None:
        return [own]
    around = [inner for folder in (root, *_named(root, ("vocdevkit",))) for inner in folders_in(folder)]
    inner_homes = [home for home in map(_own_folders, around) if home is not None]
    if inner_homes:
        divided = {name for name in split_folders(root) if root / name in {home.root for home in inner_homes}}
        if len(divided) < len(inner_homes):
            return inner_homes
        return [VocHome(root, {home.root.name: home.parts[WHOLE] for home in inner_homes})]
    parts = {
        name: VocPart(folder, folder) for name, folder in split_folders(root).items() if _is_flat(folder)
    }
    if parts:
        return [VocHome(root, parts)]
    return [VocHome(root, {WHOLE: VocPart(root, root)})] if _is_flat(root) else []


def voc_place(root: Path) -> VocHome:
    """The only VOC data set at ``root``.

    Raises:
        UserError: there is none, or several.
    """
    homes = voc_homes(root)
    if not homes:
        expected = "the folders Annotations and JPEGImages, or images with XML files beside them"
        raise UserError(root, expected, "neither or only one of them")
    if len(homes) > 1:
        found = ", ".join(home.root.name for home in homes)
        raise UserError(root, "one VOC data set", f"{len(homes)}: {found}", "Name one of these folders.")
    return homes[0]


def voc_home(root: Path) -> Path:
    """The folder of ``JPEGImages``: ``root``, or the only such folder in it or in its ``VOCdevkit``.

    Raises:
        UserError: there is none, or several.
    """
    return voc_place(root).root


def xml_files(folder: Path) -> list[Path]:
    """The annotations in a folder and its subfolders."""
    return [path for path in files_under(folder) if path.suffix.lower() == ".xml"]


def _named(root: Path, names: tuple[str, ...]) -> list[Path]:
    """The folders in ``root`` with one of these names, whatever their case, in the order of ``names``."""
    found = [folder for folder in folders_in(root) if folder.name.lower() in names]
    return sorted(found, key=lambda folder: names.index(folder.name.lower()))


def _own_folders(root: Path) -> VocHome | None:
    """A data set with a folder of annotations and one of images; other names than VOC's need XML."""
    for described in _named(root, _ANNOTATIONS):
        for images in _named(root, _IMAGES):
            plain = described.name.lower() == "annotations" and images.name.lower() == "jpegimages"
            if plain or any(map(describes_objects, xml_files(described)[:_LOOKED_AT])):
                return VocHome(root, _divided(described, images), _lists(root))
    return None


def _divided(annotations: Path, images: Path) -> dict[str, VocPart]:
    """One part for each split that divides the annotations by folder, else one of everything."""
    inner = split_folders(annotations)
    if not inner or files_with(annotations, ".xml"):
        return {WHOLE: VocPart(annotations, images)}
    beside = split_folders(images)
    return {name: VocPart(folder, beside.get(name, images)) for name, folder in inner.items()}


def _is_flat(folder: Path) -> bool:
    """Whether a folder holds images with annotations of the same names beside them."""
    files = files_with(folder, ".xml")
    if not any(map(describes_objects, files[:_LOOKED_AT])):
        return False
    stems = {path.stem for path in files}
    return any(path.stem in stems for path in files_with(folder, *IMAGE_ENDINGS))


def describes_objects(path: Path) -> bool:
    """Whether an XML file begins as VOC's annotations do; zeros of UTF-16 are passed over."""
    return re.search(rb"<(\w+:)?annotation[\s>/]", read_bytes(path)[:8000].replace(b"\0", b"")) is not None


def _lists(root: Path) -> dict[str, Path]:
    """The splits' files in ``ImageSets/Main``, but for lists of single classes such as aeroplane_train."""
    folder = next(iter(_named(root, ("imagesets",))), None)
    main = next(iter(_named(folder, ("main",))), folder) if folder is not None else None
    found = {path.stem: path for path in files_with(main, ".txt")} if main is not None else {}
    return {name: path for name, path in found.items() if not _lists_one_class(name, path, set(found))}


def _lists_one_class(name: str, path: Path, others: set[str]) -> bool:
    """VOC's own lists of a class: ``aeroplane_train``, every line with a second column -1, 0 or 1."""
    _, underscore, end = name.rpartition("_")
    if not underscore or end not in others:
        return False
    lines = text_lines(path)
    return bool(lines) and re.fullmatch(r"\S+\s+(-1|0|1)", lines[0][1]) is not None
