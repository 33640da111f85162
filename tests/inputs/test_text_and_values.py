from __future__ import annotations

import contextlib
import errno
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sppnet.errors import UserError
from sppnet.inputs.documents import load_json, load_yaml
from sppnet.inputs.text import read_text, reading, shown, text_lines
from sppnet.inputs.values import flag, identifier, real, same_key, whole

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
)


@pytest.mark.parametrize("number", [errno.EACCES, errno.ELOOP, errno.ENAMETOOLONG, errno.EIO, errno.ENOENT])
def test_errors_of_the_file_system_are_user_errors(number: int) -> None:
    with pytest.raises(UserError, match=r"a\.txt: expected a readable file or folder"), reading("set"):
        raise OSError(number, "refused", "a.txt")


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20))
def test_text_in_every_encoding_with_a_byte_order_mark(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.mktemp("text") / "a.txt"
    for encoding in ("utf-8-sig", "utf-16", "utf-32"):
        path.write_bytes(text.encode(encoding))
        assert read_text(path) == text


@pytest.mark.parametrize("content", [b"caf\xe9", b"\xff\xfe\0", b"a\xc3", b"\xfe\xff\xd8\0"])
def test_other_encodings_are_not_guessed(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match="text in UTF-8"):
        read_text(path)


def test_nul_characters_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"cat\ndog\0\n")
    with pytest.raises(UserError, match="NUL"):
        text_lines(path)


@given(ANY)
def test_values_are_accepted_or_refused(value: object) -> None:
    for read in (whole, lambda v, w: identifier(v, w, "an id"), flag):
        with contextlib.suppress(UserError):
            read(value, "a.json")
    assert len(shown(value)) < 2000


@given(st.integers(-(10**17), 10**17))
def test_whole_numbers_in_three_forms(number: int) -> None:
    assert whole(number, "") == whole(str(number), "") == whole(f"{number}.00", "") == number
    assert same_key(number) == same_key(str(number)) == number


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_as_text(number: float) -> None:
    assert real(repr(number)) == real(number) == number


@pytest.mark.parametrize(
    "value",
    [
        "nan",
        "inf",
        "1e400",
        "-1e400",
        "1_0",
        "\u0661",
        "0x10",
        "1,5",
        "",
        "9" * 5000,
        10**400,
        True,
        None,
        [1],
    ],
)
def test_other_values_are_not_numbers(value: object) -> None:
    with pytest.raises(ValueError, match="not a "):
        real(value)


@pytest.mark.parametrize(("name", "load"), [("a.json", load_json), ("a.yaml", load_yaml)])
def test_depth_is_bounded(tmp_path: Path, name: str, load: object) -> None:
    path = tmp_path / name
    path.write_text("[" * 100_000)
    assert callable(load)
    with pytest.raises(UserError, match="well-formed"):
        load(path)


def test_yaml_aliases_take_memory_once(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 25)]
    path = tmp_path / "a.yaml"
    path.write_text("\n".join(lines))
    content = load_yaml(path)
    assert isinstance(content, dict)
    assert len(content) == 25
    assert len(shown(content)) < 2000
