"""Read MATLAB files of version 5 to 7: numbers, texts, cells and structures.

The format is "MAT-File Level 5" of MathWorks' "MAT-File Format": a header of 128 bytes, then elements
of a tag (type, length) and data. Every length is compared with the remaining bytes before it is used, so
that a damaged file can neither crash the process nor allocate more memory than it has bytes.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sppnet.errors import UserError
from sppnet.inputs.text import read_bytes

MatValue: TypeAlias = NDArray[Any] | str | list[str] | dict[str, NDArray[Any]]
"""Numbers as arrays, one line of text as str, several as a list; cells as arrays of objects; structures
as a dictionary of such arrays by field."""

_NUMBERS = {
    1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8",
}  # fmt: skip
_CLASSES = {
    6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8",
}  # fmt: skip
_ENCODINGS = {16: "utf-8", 17: "utf-16", 18: "utf-32"}
_OTHERS = {3: "an object", 5: "a sparse matrix", 16: "a function", 17: "an opaque object"}
_MATRIX, _COMPRESSED = 14, 15
_CELL, _STRUCT, _CHAR = 1, 2, 4
_COMPLEX = 0x0800
_DEEPEST, _MOST_DIMENSIONS = 16, 8
_LARGEST = 1 << 32  # bytes of all variables once they are decompressed


class _BrokenError(ValueError):
    """Content that violates the format."""


@dataclass(frozen=True)
class _Element:
    kind: int
    data: memoryview


def read_mat(path: Path) -> dict[str, MatValue]:
    """Read the variables of a MATLAB file.

    Returns:
        Values by name of the variable.

    Raises:
        UserError: the file is of another version (7.3 is HDF5) or damaged, or a variable is neither numbers,
            text, cells nor a structure.
    """
    content = read_bytes(path, _LARGEST)
    if content[:8] == b"\x89HDF\r\n\x1a\n" or b"MATLAB 7.3" in content[:128]:
        hint = "In MATLAB, save(..., '-v7') writes a file that can be read."
        raise UserError(path, "a .mat file of version 7 or earlier", "version 7.3", hint)
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if len(content) < 136 or order is None or struct.unpack(order + "H", content[124:126])[0] != 0x0100:
        raise UserError(path, "a MATLAB file of version 5 to 7", "another kind of file")
    try:
        return _variables(memoryview(content)[128:], order)
    except (_BrokenError, zlib.error) as error:
        raise UserError(path, "an undamaged MATLAB file", error) from error


def _variables(data: memoryview, order: str) -> dict[str, MatValue]:
    variables: dict[str, MatValue] = {}
    left = _LARGEST
    offset = 0
    while offset < len(data):
        element, offset = _element(data, offset, order)
        if element.kind == _COMPRESSED:
            inflater = zlib.decompressobj()
            content = inflater.decompress(element.data, left)
            if not inflater.eof:
                raise _BrokenError("compressed data that are cut short or too large")
            left -= len(content)
            element, _ = _element(memoryview(content), 0, order)
        if element.kind != _MATRIX:
            raise _BrokenError(f"a variable of type {element.kind}")
        name, value = _matrix(element.data, order, 0)
        if name and not name.startswith("__"):
            variables[name] = value
    return variables


def _element(data: memoryview, offset: int, order: str) -> tuple[_Element, int]:
    """Return the element that begins offset ``start``, and the start of the next element."""
    if len(data) - offset < 8:
        raise _BrokenError("an element that is cut short")
    kind, length = struct.unpack_from(order + "II", data, offset)
    if kind >> 16:  # a small element: two bytes of length, two bytes of type, up to four bytes of data
        kind, length = kind & 0xFFFF, kind >> 16
        if length > 4:
            raise _BrokenError(f"a small element of {length} bytes")
        return _Element(kind, data[offset + 4 : offset + 4 + length]), offset + 8
    start, end = offset + 8, offset + 8 + length
    if end > len(data):
        raise _BrokenError(f"an element of {length:,} bytes where {len(data) - start:,} are left")
    padded = end if kind == _COMPRESSED else start + (length + 7) // 8 * 8
    return _Element(kind, data[start:end]), min(padded, len(data))


def _matrix(data: memoryview, order: str, depth: int) -> tuple[str, MatValue]:
    if not len(data):
        return "", np.zeros((0, 0))
    if depth > _DEEPEST:
        raise _BrokenError("cells nested too deeply")
    flags_element, offset = _element(data, 0, order)
    flags = _numbers(flags_element, order)
    if len(flags) < 1:
        raise _BrokenError("a matrix without flags")
    shape_element, offset = _element(data, offset, order)
    shape = tuple(int(side) for side in _numbers(shape_element, order))
    if not 2 <= len(shape) <= _MOST_DIMENSIONS or min(shape) < 0:
        raise _BrokenError(f"a matrix of {len(shape)} dimensions")
    name_element, offset = _element(data, offset, order)
    name = bytes(name_element.data).decode("latin-1")
    kind = int(flags[0]) & 0xFF
    count = 1
    for side in shape:
        count *= side
    if kind in _OTHERS or int(flags[0]) & _COMPLEX:
        raise _BrokenError(_OTHERS.get(kind, "complex numbers") + f" {name!r}")
    if kind == _CELL:
        return name, _cells(data, offset, order, shape, count, depth)[0]
    if kind == _STRUCT:
        return name, _fields(data, offset, order, shape, count, depth)
    if kind == _CHAR:
        return name, _text(_element(data, offset, order)[0], order, shape, count)
    if kind not in _CLASSES:
        raise _BrokenError(f"a variable of class {kind}")
    values = _numbers(_element(data, offset, order)[0], order)
    if len(values) != count:
        raise _BrokenError(f"{len(values)} numbers in a matrix of {count}")
    with np.errstate(all="ignore"):
        return name, values.astype(_CLASSES[kind]).reshape(shape, order="F")


def _numbers(element: _Element, order: str) -> NDArray[Any]:
    if element.kind not in _NUMBERS:
        raise _BrokenError(f"numbers of type {element.kind}")
    dtype = np.dtype(order + _NUMBERS[element.kind])
    if len(element.data) % dtype.itemsize:
        raise _BrokenError("a number that is cut short")
    return np.frombuffer(element.data, dtype)


def _cells(
    data: memoryview, offset: int, order: str, shape: tuple[int, ...], count: int, depth: int
) -> tuple[NDArray[Any], int]:
    if count > (len(data) - offset) // 8:  # each cell takes offset least its tag of 8 bytes
        raise _BrokenError(f"{count:,} cells in {len(data) - offset:,} bytes")
    cells = np.empty(count, dtype=object)
    for number in range(count):
        element, offset = _element(data, offset, order)
        if element.kind != _MATRIX:
            raise _BrokenError(f"a cell of type {element.kind}")
        cells[number] = _matrix(element.data, order, depth + 1)[1]
    return cells.reshape(shape, order="F"), offset


def _fields(
    data: memoryview, offset: int, order: str, shape: tuple[int, ...], count: int, depth: int
) -> dict[str, NDArray[Any]]:
    width_element, offset = _element(data, offset, order)
    names_element, offset = _element(data, offset, order)
    widths = _numbers(width_element, order)
    width = int(widths[0]) if len(widths) == 1 else 0
    packed = bytes(names_element.data)
    if width < 1 or len(packed) % width:
        raise _BrokenError("a structure without the names of its fields")
    names = [packed[i : i + width].split(b"\0")[0].decode("latin-1") for i in range(0, len(packed), width)]
    cells, _ = _cells(data, offset, order, (len(names) * count,), len(names) * count, depth)
    return {name: cells[number :: len(names)].reshape(shape, order="F") for number, name in enumerate(names)}


def _text(element: _Element, order: str, shape: tuple[int, ...], count: int) -> str | list[str]:
    try:
        if element.kind in _ENCODINGS:
            ending = "" if element.kind == 16 else {"<": "-le", ">": "-be"}[order]
            text = bytes(element.data).decode(_ENCODINGS[element.kind] + ending)
        else:
            codes = _numbers(element, order).astype(np.int64)
            text = "".join(map(chr, codes.tolist()))
    except (ValueError, OverflowError) as error:
        raise _BrokenError(f"a text that cannot be decoded ({error})") from error
    if len(text) != count:
        raise _BrokenError(f"{len(text)} text in a text of {count}")
    rows = shape[0] if len(shape) == 2 else 1
    lines = [_joined(text[row::rows]) for row in range(rows)] if count else [""]
    return lines[0] if len(lines) == 1 else lines


def _joined(units: str) -> str:
    """Join characters beyond 16 bits, which MATLAB stores as two surrogates."""
    return units.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
