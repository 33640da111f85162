"""What an installation needs beside modules, and what the Containerfile names."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

from sppnet.cli.serve import ServeFlags
from sppnet.cli.shell import VERBS

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CONTAINER = (ROOT / "Containerfile").read_text(encoding="utf-8")


def test_every_file_of_the_package_is_installed():
    package = ROOT / "src" / "sppnet"
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["sppnet"]
    files = [path.relative_to(package) for path in package.rglob("*") if path.is_file()]
    data = [str(file) for file in files if file.suffix != ".py" and "__pycache__" not in file.parts]
    assert len(data) >= 5
    assert not [name for name in data if not any(fnmatch(name, pattern) for pattern in patterns)]


def test_the_container_copies_what_there_is_and_what_the_build_reads():
    copied = [
        word for line in re.findall(r"^COPY (?!--from)(.*) \S+$", CONTAINER, re.M) for word in line.split()
    ]
    assert {"pyproject.toml", "src"} <= set(copied)
    assert all((ROOT / name).exists() for name in copied)
    read = [PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]]
    assert set(read) <= set(copied)


def test_the_container_installs_extras_and_starts_a_program_that_there_are():
    extras = {name for some in re.findall(r'"\.\[([\w,-]+)\]"', CONTAINER) for name in some.split(",")}
    assert extras
    assert extras <= set(PROJECT["project"]["optional-dependencies"])
    program = re.search(r'^ENTRYPOINT \["(\w+)", "(\w+)"\]$', CONTAINER, re.M)
    assert program is not None
    assert program[1] in PROJECT["project"]["scripts"]
    assert program[2] in VERBS


def test_the_container_s_flags_and_health_check_are_those_of_the_server():
    command = re.search(r"^CMD \[(.*)\]$", CONTAINER, re.M)
    assert command is not None
    flags = [word for word in re.findall(r'"([^"]*)"', command[1]) if word.startswith("--")]
    assert flags
    assert {flag.removeprefix("--").replace("-", "_") for flag in flags} <= set(ServeFlags.__annotations__)
    port = re.search(r'"--port", "(\d+)"', command[1])
    assert port is not None
    assert f"127.0.0.1:{port[1]}/ready" in CONTAINER
    assert f"EXPOSE {port[1]}" in CONTAINER
