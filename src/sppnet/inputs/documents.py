"""Read JSON, YAML and XML of any origin, limited in depth and size, without entities, tags or types."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any, cast
from xml.etree.ElementTree import Element, ParseError

import yaml
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from sppnet.errors import UserError
from sppnet.inputs.text import read_bytes, read_text, shown

_LARGEST_YAML = 1 << 20  # bytes; the pure Python parser takes many seconds per MB
_DEEPEST_YAML = 30
_LARGEST_XML = 64 << 20


def load_json(path: Path) -> object:
    """Read a JSON file.

    Raises:
        UserError: the file cannot be read, is not JSON in UTF-8 or UTF-16, or is nested too deeply.

    Examples:
        >>> path = getfixture("tmp_path") / "a.json"
        >>> _ = path.write_text("[1, 2]")
        >>> load_json(path)
        [1, 2]
    """
    return parse_json(read_text(path), path)


def parse_json(text: str, path: Path, start: int | None = None) -> object:
    """Parse a JSON text, or the value that begins at position ``start``.

    Raises:
        UserError: the text is not JSON or is nested too deeply.

    Examples:
        >>> parse_json('"boxes": [1, 2], "names": []', Path("a.json"), 9)
        [1, 2]
    """
    try:
        return json.loads(text) if start is None else json.JSONDecoder().raw_decode(text, start)[0]
    except RecursionError:
        raise UserError(path, "well-formed JSON", "JSON nested too deeply") from None
    except ValueError as error:
        raise UserError(path, "well-formed JSON", error) from error


class _TextLoader(yaml.BaseLoader):
    """Construct every scalar as the written text, ignore tags and refuse duplicate keys."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        # The scanner's time grows with the square of the depth.
        if self._depth > _DEEPEST_YAML:
            raise yaml.MarkedYAMLError(problem=f"more than {_DEEPEST_YAML} levels")
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        mapping: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            key: object = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.MarkedYAMLError(problem="a key that is not text", problem_mark=key_node.start_mark)
            if key in mapping:
                problem = f"the key {shown(key)} twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
            mapping[key] = self.construct_object(value_node, deep=deep)
        return mapping


def load_yaml(path: Path) -> object:
    """Read a YAML file as texts, lists and dictionaries with texts as keys.

    Scalars are not resolved: ``no``, ``010``, ``12:30`` and ``~`` stay texts. Aliases are shared, not copied.

    Raises:
        UserError: the file cannot be read, is not YAML, is nested too deeply, is larger than 1 MiB, or has
            a duplicate key.

    Examples:
        >>> path = getfixture("tmp_path") / "a.yaml"
        >>> _ = path.write_text("names: [cat, 010]")
        >>> load_yaml(path)
        {'names': ['cat', '010']}
    """
    text = read_text(path, _LARGEST_YAML)
    try:
        return yaml.load(text, Loader=_TextLoader)
    except RecursionError:
        raise UserError(path, "well-formed YAML", "YAML nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(path, "well-formed YAML", error) from error


def load_xml(path: Path) -> Element:
    """Read an XML file and return its root; element names lose their namespaces.

    Raises:
        UserError: the file cannot be read, is not XML, has entities, or has an unknown encoding.

    Examples:
        >>> path = getfixture("tmp_path") / "a.xml"
        >>> _ = path.write_text("<annotation><size/></annotation>")
        >>> load_xml(path).tag
        'annotation'
    """
    content = read_bytes(path, _LARGEST_XML)
    try:
        tree = fromstring(content)
    except (ParseError, DefusedXmlException, ValueError, LookupError, RecursionError) as error:
        raise UserError(path, "well-formed XML without entities", error) from error
    for node in tree.iter():
        node.tag = node.tag.rpartition("}")[2]
    return tree


def json_lines(content: bytes) -> Iterator[dict[str, Any]]:
    r"""Yield the objects of a JSON Lines file; other and incomplete lines are skipped.

    A process that is killed while it appends leaves an incomplete line.

    Args:
        content: the bytes of the file.

    Yields:
        The objects, in their order.

    Examples:
        >>> list(json_lines(b'{"a": 1}\n{"a": '))
        [{'a': 1}]
    """
    for line in content.splitlines():
        try:
            record: object = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            yield cast("dict[str, Any]", record)
