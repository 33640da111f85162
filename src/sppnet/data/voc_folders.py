"""Find the folders of a VOC data set: those of VOC, ``images`` and ``annotations``, or a single folder."""

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
_EXAMINED = 50  # annotations whose content is examined
_IMAGES = ("jpegimages", "images", "image", "imgs", "img")


@dataclass(frozen=True)
class SplitFolders:
    """The folder of annotations and the folder of images of a split, which may be the same."""

    annotations: Path
    images: Path


@dataclass(frozen=True)
class VocLayout:
    """The folders of a VOC data set.

    Attributes:
        root: the folder that contains ``Annotations``.
        parts: the folders of each split; of `WHOLE` only if lists or nothing divide the data set.
        lists: the files of ``ImageSets/Main`` by split.
    """

    root: Path
    parts: dict[str, SplitFolders]
    lists: dict[str, Path] = field(default_factory=dict[str, Path])


def voc_layouts(root: Path) -> list[VocLayout]:
    """List the VOC data sets at ``root``, in it or in its ``VOCdevkit``."""
    if not root.is_dir():
        return []
    own = _own_folders(root)
    if own is not None:
        return [own]
    around = [inner for folder in (root, *_named(root, ("vocdevkit",))) for inner in folders_in(folder)]
    inner_layouts = [layout for layout in map(_own_folders, around) if layout is not None]
    if inner_layouts:
        divided = {
            name for name in split_folders(root) if root / name in {layout.root for layout in inner_layouts}
        }
        if len(divided) < len(inner_layouts):
            return inner_layouts
        return [VocLayout(root, {layout.root.name: layout.parts[WHOLE] for layout in inner_layouts})]
    parts = {
        name: SplitFolders(folder, folder) for name, folder in split_folders(root).items() if _is_flat(folder)
    }
    if parts:
        return [VocLayout(root, parts)]
    return [VocLayout(root, {WHOLE: SplitFolders(root, root)})] if _is_flat(root) else []


def voc_layout(root: Path) -> VocLayout:
    """Return the only VOC data set at ``root``.

    Raises:
        UserError: there is no VOC data set, or there are several.
    """
    layouts = voc_layouts(root)
    if not layouts:
        expected = "the folders Annotations and JPEGImages, or images with XML files next to them"
        raise UserError(root, expected, "other folders")
    if len(layouts) > 1:
        found = ", ".join(layout.root.name for layout in layouts)
        raise UserError(root, "one VOC data set", f"the data sets {found}", "Name one of these folders.")
    return layouts[0]


def voc_root(root: Path) -> Path:
    """Return the root of the only VOC data set at ``root``.

    Raises:
        UserError: there is no VOC data set, or there are several.
    """
    return voc_layout(root).root


def xml_files(folder: Path) -> list[Path]:
    """List the XML files in a folder and its subfolders."""
    return [path for path in files_under(folder) if path.suffix.lower() == ".xml"]


def _named(root: Path, names: tuple[str, ...]) -> list[Path]:
    """List the folders in ``root`` with one of these names, in any case, in the order of ``names``."""
    found = [folder for folder in folders_in(root) if folder.name.lower() in names]
    return sorted(found, key=lambda folder: names.index(folder.name.lower()))


def _own_folders(root: Path) -> VocLayout | None:
    """Return the data set with folders of annotations and images; names other than those of VOC need XML."""
    for folder in _named(root, _ANNOTATIONS):
        for images in _named(root, _IMAGES):
            plain = folder.name.lower() == "annotations" and images.name.lower() == "jpegimages"
            if plain or any(map(describes_objects, xml_files(folder)[:_EXAMINED])):
                return VocLayout(root, _divided(folder, images), _lists(root))
    return None


def _divided(annotations: Path, images: Path) -> dict[str, SplitFolders]:
    """Return the folders of each split if the annotations are divided by folder, else those of `WHOLE`."""
    inner = split_folders(annotations)
    if not inner or files_with(annotations, ".xml"):
        return {WHOLE: SplitFolders(annotations, images)}
    beside = split_folders(images)
    return {name: SplitFolders(folder, beside.get(name, images)) for name, folder in inner.items()}


def _is_flat(folder: Path) -> bool:
    """Return whether a folder has images and XML annotations of the same names."""
    files = files_with(folder, ".xml")
    if not any(map(describes_objects, files[:_EXAMINED])):
        return False
    stems = {path.stem for path in files}
    return any(path.stem in stems for path in files_with(folder, *IMAGE_ENDINGS))


def describes_objects(path: Path) -> bool:
    """Return whether an XML file begins like a VOC annotation, in UTF-8 or UTF-16."""
    return re.search(rb"<(\w+:)?annotation[\s>/]", read_bytes(path)[:8000].replace(b"\0", b"")) is not None


def _lists(root: Path) -> dict[str, Path]:
    """Return the lists of splits in ``ImageSets/Main``, without lists of a class such as aeroplane_train."""
    folder = next(iter(_named(root, ("imagesets",))), None)
    main = next(iter(_named(folder, ("main",))), folder) if folder is not None else None
    found = {path.stem: path for path in files_with(main, ".txt")} if main is not None else {}
    return {name: path for name, path in found.items() if not _lists_one_class(name, path, set(found))}


def _lists_one_class(name: str, path: Path, others: set[str]) -> bool:
    """Return whether a list is that of a class, with a second column of -1, 0 or 1."""
    _, underscore, end = name.rpartition("_")
    if not underscore or end not in others:
        return False
    lines = text_lines(path)
    return bool(lines) and re.fullmatch(r"\S+\s+(-1|0|1)", lines[0][1]) is not None
