"""Mutations of file contents and of folders: of bytes, of tokens, of JSON trees, of the file system."""

from __future__ import annotations

import json
import random
import re
import zlib
from pathlib import Path
from typing import Any

DEEP = 3000
TEXTS = [
    "", " ", "0", "-1", "1", "3000000000", "9" * 400, "9" * 5000, "1e400", "-1e309", "nan", "inf",
    "-inf", "NaN", "1e39", "1e-400", "0x10", "010", "1_0", "\u0661", "²", "1,5", "12:30", "no", "on",
    "~", "null", "true", "false", "None", "[]", "{}", "[[", "{{", "a" * 300, "a" * 5000, "\0", "a\0b",
    "../" * 40 + "etc/passwd", "/", ".", "..", "C:\\x\\a.png", ".\\a.png", "/old/images/train/a.png",
    "train", "val", "a.png", "b", "\ufeff", "\u2028", "é", "日本", "&a", "*a",
    "!!python/object:os.system", "!x", "&a [*a, *a]", "<<", "? ", "- ", "|", ">", "%", "@", "`", "#",
    "'", '"', "\\", "\\ud800", "\t", "\r", "\n", "\x1b[31m", "=cmd", "<", ">", "&", "&amp;", "&x;",
    "]]>", "<!--", "<a>", "xmlns='urn:x'", "<![CDATA[", "encoding='utf-16'", "encoding='x'", "0.0",
    "1.0", "2", "12", "1e3", "-0",
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 7, 1.0, 0.5, -0.0, 1e308, 3000000000, 2**63, 10**400, "", "0", "7",
    "false", "a.png", [], {}, [1], [[]], {"a": 1}, [1, 2, 3, 4], [0, 0, 1e999, 1], ["1", "2", "3", "4"],
    float("nan"), float("inf"), "\ud800", "a\0b", "x" * 5000, "../a.png", "C:\\a.png", "/b.png",
    [1, 2, 3], [0, 0, 0, 0], [-5, -5, 99, 99],
]  # fmt: skip
TOKEN = re.compile(rb"[A-Za-z0-9_.+-]+|[^A-Za-z0-9_.+\s-]")


def mutated(content: bytes, name: str, rng: random.Random) -> bytes:
    """One to three mutations of a file's content."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        choices = [of_bytes, of_bytes]
        if not name.endswith((".mat", ".parquet")):
            choices += [of_tokens, of_tokens, of_tokens, of_lines, of_encoding, nested]
        if name.endswith(".json"):
            choices += [of_json] * 6
        if name.endswith(".mat"):
            choices += [of_words, of_words, inside_deflated]
        content = rng.choice(choices)(content, rng)
    return content[: 1 << 20]


def of_bytes(content: bytes, rng: random.Random) -> bytes:
    data = bytearray(content)
    at = rng.randrange(len(data) + 1)
    match rng.randrange(6):
        case 0:
            return bytes(data[:at])
        case 1:
            data[at:at] = rng.randbytes(rng.randrange(1, 9))
        case 2:
            del data[at : at + rng.randrange(1, 9)]
        case 3:
            data[at:at] = data[rng.randrange(len(data) + 1) :][: rng.randrange(64)]
        case _:
            for _ in range(rng.choice((1, 1, 2, 8))):
                if data:
                    data[rng.randrange(len(data))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return bytes(data)


def of_words(content: bytes, rng: random.Random) -> bytes:
    """Another number in one of the 32-bit words: lengths, types and shapes of binary formats."""
    at = rng.randrange(max(len(content) // 4, 1)) * 4
    word = rng.choice((0, 1, 4, 5, 14, 15, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, rng.randrange(1 << 17)))
    return content[:at] + word.to_bytes(4, rng.choice(("little", "big"))) + content[at + 4 :]


def inside_deflated(content: bytes, rng: random.Random) -> bytes:
    """The same inside of a compressed variable, which is compressed again."""
    if len(content) < 136 or content[128] != 15:
        return of_words(content, rng)
    length = int.from_bytes(content[132:136], "little")
    try:
        inner = zlib.decompress(content[136 : 136 + length])
    except zlib.error:
        return of_bytes(content, rng)
    packed = zlib.compress(rng.choice((of_bytes, of_words))(inner, rng))
    return content[:132] + len(packed).to_bytes(4, "little") + packed + content[136 + length :]


def of_tokens(content: bytes, rng: random.Random) -> bytes:
    found = list(TOKEN.finditer(content))
    if not found:
        return rng.choice(TEXTS).encode()
    token = rng.choice(found)
    text = rng.choice(TEXTS).encode()
    start, end = token.span()
    match rng.randrange(5):
        case 0:
            return content[:start] + content[end:]
        case 1:
            return content[:end] + text + content[end:]
        case 2:
            other = rng.choice(found)
            return content[:start] + other.group() + content[end:]
        case _:
            return content[:start] + text + content[end:]


def of_lines(content: bytes, rng: random.Random) -> bytes:
    lines = content.split(b"\n")
    at = rng.randrange(len(lines))
    match rng.randrange(4):
        case 0:
            del lines[at]
        case 1:
            lines.insert(at, lines[rng.randrange(len(lines))])
        case 2:
            lines[at] = b"  " + lines[at] + b" \t"
        case _:
            lines[at : at + 1] = [lines[at]] * rng.choice((2, 100))
    return rng.choice((b"\n", b"\n", b"\r\n", b"\r")).join(lines)


def of_encoding(content: bytes, rng: random.Random) -> bytes:
    text = content.decode("utf-8", "replace")
    encoding = rng.choice(
        ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig", "latin-1", "cp1251", "cp037")
    )
    return text.encode(encoding, "replace")


def nested(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content) + 1)
    opening, closing = rng.choice(
        ((b"[", b"]"), (b'{"a":', b"}"), (b"<a>", b"</a>"), (b"- ", b""), (b"(", b")"))
    )
    return content[:at] + opening * DEEP + content[at : at + 1] + closing * DEEP + content[at + 1 :]


def of_json(content: bytes, rng: random.Random) -> bytes:
    """Another value, one less, or one twice, somewhere in a JSON tree."""
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        return of_tokens(content, rng)
    places: list[tuple[Any, Any]] = []
    pending = [tree]
    while pending:
        node = pending.pop()
        keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        places += [(node, key) for key in keys]
        pending += [node[key] for key in keys]
    if not places:
        return json.dumps(rng.choice(VALUES)).encode()
    node, key = rng.choice(places)
    match rng.randrange(5):
        case 0:
            del node[key]
        case 1 if isinstance(node, list):
            node.append(node[key])
        case 2:
            other, place = rng.choice(places)
            node[key] = json.loads(json.dumps(other[place])) if place in keys_of(other) else None
        case _:
            node[key] = rng.choice(VALUES)
    try:
        return json.dumps(tree).encode()
    except (ValueError, RecursionError):
        return content


def keys_of(node: Any) -> Any:
    return node if isinstance(node, dict) else range(len(node))


def change_folder(root: Path, names: list[str], rng: random.Random) -> None:
    """Remove, rename, replace or add a file or folder."""
    path = root / rng.choice(names)
    other = root / rng.choice(names)
    match rng.randrange(9):
        case 0:
            path.unlink()
        case 1:
            path.unlink()
            path.mkdir()
        case 2:
            path.unlink()
            path.symlink_to(path)
        case 3:
            path.rename(path.with_suffix(path.suffix.upper()))
        case 4:
            path.with_name("._" + path.name).write_bytes(rng.randbytes(40))
        case 5:
            folder = path.with_name(rng.choice(("y.xml", "y.json", "y.yaml", "y.txt", "x y.png", "ä b.HEIC")))
            folder.mkdir()
        case 6:
            path.with_name(path.stem + rng.choice((".jpg", ".xml", ".txt", ".json", ".heic"))).write_bytes(
                other.read_bytes()
            )
        case 7:
            bad = rng.choice((b"\xff\xfe.png", b"a\nb.png", b"n" * 250 + b".png", b" .png", b"train.txt"))
            (path.parent / bad.decode("utf-8", "surrogateescape")).write_bytes(other.read_bytes())
        case _:
            folder = path.parent
            renamed = folder.with_name(rng.choice((folder.name.upper(), "images", "labels", "train")))
            if folder != root and not renamed.exists():
                folder.rename(renamed)
