from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import tyro

from sppnet.cli.flags import ConfigFile, UsageError, read_flags
from sppnet.errors import UserError


@dataclass(frozen=True)
class Options:
    """Options.

    Attributes:
        levels: bins.
        share: a share.
    """

    levels: tuple[int, ...] = (3, 1)
    share: float = 0.5

    def __post_init__(self) -> None:
        if self.share > 1:
            raise UserError("share", "at most 1", self.share)


@dataclass(frozen=True)
class Flags:
    """Some flags.

    Attributes:
        data: a folder.
        out: a run.
        seed: a seed.
        config: a file.
        options: more.
    """

    data: Annotated[Path, tyro.conf.Positional]
    out: Path
    seed: int = 0
    config: ConfigFile = None
    options: Annotated[Options, tyro.conf.arg(name="")] = Options()


def read(*words: object) -> Flags:
    return read_flags(Flags, "sppnet test", [str(word) for word in words])


def test_flags_fill_the_dataclass() -> None:
    found = read("d", "--out", "o", "--levels", 2, 1, "--share", 0.25)
    assert found == Flags(Path("d"), Path("o"), options=Options((2, 1), 0.25))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "c.toml"
    path.write_text('seed = 7\nout = "there"\n[options]\nlevels = [4]\n')
    return path


def test_a_config_gives_defaults_and_flags_win(config: Path) -> None:
    found = read("d", "--config", config)
    assert found == Flags(Path("d"), Path("there"), 7, config, Options((4,)))
    found = read("d", f"--config={config}", "--seed", 8, "--out", "here", "--share", 0.75)
    assert found == Flags(Path("d"), Path("here"), 8, config, Options((4,), 0.75))


def test_what_neither_gives_is_missing(config: Path) -> None:
    with pytest.raises(UsageError, match="Missing from sppnet test: PATH"):
        read("--config", config)


def test_mistakes_in_a_config_are_named(config: Path) -> None:
    config.write_text("sede = 7\n")
    with pytest.raises(UserError, match=r"c\.toml.*got 'sede'. Did you mean 'seed'"):
        read("d", "--config", config)
    with pytest.raises(UserError, match="no such file"):
        read("d", "--config", config.with_name("none.toml"))


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_mistakes_in_words_are_one_line(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding))
    for words in (["d", "e", "--out", "o"], ["d", "--out"], ["d", "--out", "o", "--seed", "1.5"], []):
        with pytest.raises(UsageError) as caught:
            read(*words)
        assert "\n" not in str(caught.value)
        assert str(caught.value).endswith("See sppnet test --help.")
        assert not set("╭╮╰╯│─|+") & set(str(caught.value))
        assert "----" not in str(caught.value)


def test_what_the_dataclass_refuses_is_told() -> None:
    with pytest.raises(UserError, match="share: expected at most 1, got 2"):
        read("d", "--out", "o", "--share", "2.0")


def test_help_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        read("--help")
    assert stop.value.code in (0, None)
    assert "a share (default: 0.5)" in capsys.readouterr().out
