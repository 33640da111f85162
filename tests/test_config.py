from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import tomli_w

from sppnet.config import as_config, from_config, read_toml
from sppnet.errors import UserError


@dataclass(frozen=True)
class Inner:
    levels: tuple[int, ...] = (6, 3)
    span: tuple[float, float] = (0.0, 1.0)
    mode: Literal["max", "mean"] = "max"


@dataclass(frozen=True)
class Outer:
    name: str
    weights: Path | None = None
    limit: float | None = 0.5
    size: int | tuple[int, ...] = 1
    on: bool = False
    inner: Inner = Inner()
    learned_: int = field(default=0, init=False)


@pytest.mark.parametrize(
    "value",
    [
        Outer("a"),
        Outer("a", Path("w/x.safetensors"), None, (1, 2), True, Inner((), (0.5, float("inf")), "mean")),
    ],
)
def test_toml_round_trip(tmp_path: Path, value: Outer) -> None:
    path = tmp_path / "c.toml"
    path.write_text(tomli_w.dumps(as_config(value)), encoding="utf-8")
    assert from_config(Outer, read_toml(path), path) == value


def test_missing_fields_have_their_defaults() -> None:
    assert from_config(Outer, {"name": "b", "inner": {"mode": "mean"}}, "here") == Outer(
        "b", inner=Inner(mode="mean")
    )
    assert from_config(Outer, {"limit": 1}, "here", missing="?") == Outer("?", limit=1.0)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "here: expected a value for 'name', got none"),
        ({"name": 1}, "here: name: expected text, got 1"),
        ({"name": "a", "nane": "b"}, "got 'nane'. Did you mean 'name'?"),
        ({"name": "a", "learned_": 1}, "got 'learned_'"),
        ({"name": "a", "on": 1}, "here: on: expected true or false, got 1"),
        ({"name": "a", "size": True}, "here: size: expected a whole number or a list, got True"),
        ({"name": "a", "limit": "much"}, "here: limit: expected a number, got 'much'"),
        ({"name": "a", "inner": 3}, "here: inner: expected a table, got 3"),
        (
            {"name": "a", "inner": {"levels": [6, "3"]}},
            "here: inner: levels[1]: expected a whole number, got '3'",
        ),
        ({"name": "a", "inner": {"span": [1.0]}}, "here: inner: span: expected a list of 2, got [1.0]"),
        (
            {"name": "a", "inner": {"mode": "min"}},
            "here: inner: mode: expected one of 'max', 'mean', got 'min'",
        ),
        ({"name": "a", "inner": {"levels": 6}}, "here: inner: levels: expected a list, got 6"),
    ],
)
def test_invalid_tables_raise_user_errors(table: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as caught:
        from_config(Outer, table, "here")
    assert message in str(caught.value)


def test_invalid_files_raise_user_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_toml(tmp_path / "none.toml")
    with pytest.raises(UserError, match="TOML"):
        read_toml(tmp_path)
    (tmp_path / "bad.toml").write_text("a = = 1")
    with pytest.raises(UserError, match=r"bad\.toml"):
        read_toml(tmp_path / "bad.toml")
