from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.io import loadmat, savemat

from sppnet.errors import UserError
from sppnet.inputs.mat import read_mat

CASES = Path(__file__).parents[2].parent / "shared" / "cases" / "mat"
DTYPES = ["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"]

numbers = st.sampled_from(DTYPES).flatmap(
    lambda kind: arrays.arrays(
        np.dtype(kind), arrays.array_shapes(min_dims=2, max_dims=3, min_side=0, max_side=4)
    )
)
texts = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF, exclude_categories=["Cs"]), min_size=1)
names = st.from_regex(r"[a-z][a-z0-9_]{0,9}", fullmatch=True)


def cells(values: list[object]) -> np.ndarray:
    out = np.empty((len(values), 1), dtype=object)
    for row, value in enumerate(values):
        out[row, 0] = value
    return out


values = st.recursive(
    numbers | texts,
    lambda inner: (
        st.lists(inner, max_size=3).map(cells) | st.dictionaries(names, inner, min_size=1, max_size=3)
    ),
    max_leaves=6,
)


def same(ours: object, theirs: object) -> None:
    """What this package reads equals what scipy does, which has other types for texts and structures."""
    if isinstance(ours, dict):
        assert isinstance(theirs, np.ndarray)
        assert set(ours) == set(theirs.dtype.names or ())
        for name, column in ours.items():
            assert column.shape == theirs.shape
            for one, other in zip(column.flat, theirs[name].flat, strict=True):
                same(one, other)
    elif isinstance(ours, str):
        assert [ours] == (theirs.tolist() or [""])
    elif isinstance(ours, list):
        assert ours == [line.ljust(len(ours[0])) for line in theirs.tolist()]
    elif ours.dtype == object:
        assert ours.shape == theirs.shape
        for one, other in zip(ours.flat, theirs.flat, strict=True):
            same(one, other)
    else:
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def written(folder: Path, content: dict[str, object], compressed: bool) -> Path:
    stream = io.BytesIO()
    savemat(stream, content, do_compression=compressed)
    path = folder / "x.mat"
    path.write_bytes(stream.getvalue())
    return path


@given(st.dictionaries(names, values, min_size=1, max_size=3), st.booleans())
@settings(deadline=None, max_examples=40)
def test_variables_equal_those_of_scipy(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, object], compressed: bool
) -> None:
    path = written(tmp_path_factory.mktemp("mat"), content, compressed)
    ours = read_mat(path)
    theirs = {name: value for name, value in loadmat(path).items() if not name.startswith("__")}
    assert set(ours) == set(theirs)
    for name, value in ours.items():
        same(value, theirs[name])


def swapped(kind: int, data: bytes) -> bytes:
    return kind.to_bytes(4, "big") + len(data).to_bytes(4, "big") + data + b"\0" * (-len(data) % 8)


def test_big_endian_files_and_small_elements(tmp_path: Path) -> None:
    flags = swapped(6, (6).to_bytes(4, "big") + bytes(4))
    shape = swapped(5, np.array([2, 2], ">i4").tobytes())
    name = (1).to_bytes(2, "big") + (1).to_bytes(2, "big") + b"m\0\0\0"
    values = swapped(3, np.array([1, -2, 300, 4], ">i2").tobytes())
    header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x01\x00MI"
    (tmp_path / "x.mat").write_bytes(header + swapped(14, flags + shape + name + values))
    read = read_mat(tmp_path / "x.mat")["m"]
    assert isinstance(read, np.ndarray)
    assert (read.dtype, read.tolist()) == (np.float64, [[1, 300], [-2, 4]])
    np.testing.assert_array_equal(read, loadmat(tmp_path / "x.mat")["m"])


@pytest.mark.parametrize(
    ("content", "got"),
    [
        ({"x": np.array([[1 + 2j]])}, "complex numbers 'x'"),
        ({"x": np.array([[True]])}, None),
    ],
)
def test_other_kinds_of_variables(tmp_path: Path, content: dict[str, object], got: str | None) -> None:
    path = written(tmp_path, content, False)
    if got is None:
        assert read_mat(path)["x"].tolist() == [[1]]
    else:
        with pytest.raises(UserError, match=got):
            read_mat(path)


def test_other_versions_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.mat"
    savemat(path, {"x": np.eye(2)}, format="4")
    with pytest.raises(UserError, match="version 5 to 7"):
        read_mat(path)
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(200))
    with pytest.raises(UserError, match=r"got version 7\.3"):
        read_mat(path)


def test_lengths_beyond_the_file_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, {"x": np.arange(4.0), "y": cells(["a", np.eye(2)])}, False)
    whole = path.read_bytes()
    for at in range(128, len(whole), 4):
        for word in (0, 0x7FFFFFFF, 0xFFFFFFFF):
            path.write_bytes(whole[:at] + word.to_bytes(4, "little") + whole[at + 4 :])
            with contextlib.suppress(UserError):
                read_mat(path)
    for end in range(0, len(whole), 7):
        path.write_bytes(whole[:end])
        if end < 136:
            with pytest.raises(UserError, match="MATLAB file"):
                read_mat(path)


@pytest.mark.shared
@pytest.mark.skipif(not CASES.is_dir(), reason="the files that crash scipy are not beside the repository")
def test_files_that_crash_scipy() -> None:
    for path in sorted(CASES.glob("*.mat")):
        with pytest.raises(UserError, match="undamaged MATLAB file"):
            read_mat(path)
