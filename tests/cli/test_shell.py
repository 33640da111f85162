from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
import warnings

import pytest

from sppnet.cli import main, shell
from sppnet.cli.shell import VERBS


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sppnet", *words], capture_output=True, text=True, check=False
    )


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    for verb, what in VERBS.items():
        assert f"  {verb}" in said
        assert what in said


def test_every_verb_has_its_file_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in VERBS:
        with contextlib.suppress(SystemExit):
            assert main([verb, "--help"]) == 0
        assert f"usage: sppnet {verb}" in capsys.readouterr().out


def test_no_word_at_all_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "usage: sppnet" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    import sppnet

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"sppnet {sppnet.__version__}\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["predit"], "Did you mean 'predict'?"),
        (["cook"], "got 'cook'"),
        (["fit", "segment"], "'segment' is none of detect, classify. See sppnet fit --help."),
        (["check", "--jsn"], "--jsn"),
        (["check", "more"], "more"),
        (["evaluate"], "RUN"),
        (["fit", "detect"], "Missing from sppnet fit detect: DATA --out RUN. See"),
        (["evaluate", "run", "data", "--split"], "--split"),
        (
            ["fit", "detect", "data"],
            "Missing from sppnet fit detect: --out RUN. See sppnet fit detect --help.",
        ),
        (["fit", "detect", "data", "--out", "run", "--seed", "x"], "--seed"),
        (["fit", "detect", "data", "--out", "run", "--device", "tpu"], "tpu"),
        (["benchmark", "cooking"], "cooking"),
    ],
)
def test_words_that_make_no_sense(refused, words: list[str], said: str) -> None:
    assert said in refused(*words)


def test_exit_codes_of_the_process(program) -> None:
    """A user's mistake: 2 and one line. A failure of ours: 1 and a traceback."""
    wrong = run("evaluate", "nowhere", "nothing")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.count("\n") == 1
    assert "nowhere: expected a run, got no such folder" in wrong.stderr
    failed = program("broken_verb")
    assert failed.returncode == 1
    assert "Traceback" in failed.stderr
    assert "ZeroDivisionError" in failed.stderr


def test_an_interrupt_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shell.importlib, "import_module", interrupted)
    assert main(["check"]) == 130
    assert capsys.readouterr().err == "sppnet: interrupted\n"


def test_a_reader_that_goes_away_makes_no_traceback() -> None:
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "sppnet", "check"], stdout=writing, stderr=subprocess.PIPE
    )
    os.close(reading)
    os.close(writing)
    _, err = process.communicate()
    assert process.returncode != 0
    assert b"Traceback" not in err


HEAVY = ["torch", "numpy", "PIL", "numba", "sklearn", "matplotlib"]
LIGHT = [
    ["predict", "--help"],
    ["predict", "nowhere", "a.jpg"],
    ["evaluate", "--help"],
    ["evaluate", "nowhere", "data"],
    ["fit", "detect", "--help"],
    ["fit", "detect", "nowhere", "--out", "x"],
    ["fit", "classify", "--help"],
    ["fit", "classify", "nowhere", "--out", "x"],
    ["check", "--help"],
    ["demo", "--help"],
]


def test_help_imports_neither_tyro_nor_rich(program) -> None:
    """The first page of help is answered before anything is imported."""
    said = program("imported_by_calls", json.dumps([["--help"]]), json.dumps([*HEAVY, "tyro", "rich"]))
    assert json.loads(said.stdout)["--help"]["imported"] == []


def test_help_and_wrong_paths_import_nothing_heavy(program) -> None:
    """One interpreter runs them all; what one imports would be seen after it."""
    said = program("imported_by_calls", json.dumps(LIGHT), json.dumps(HEAVY))
    found = json.loads(said.stdout)
    assert {call: of["imported"] for call, of in found.items() if of["imported"]} == {}
    for call, of in found.items():
        assert ("usage: sppnet" if "--help" in call else "nowhere") in of["said"]


@pytest.mark.parametrize("module", ["tyro", "rich", "numpy"])
def test_an_interrupt_while_libraries_are_imported_is_one_line(program, module: str) -> None:
    said = program("interrupted_import", module)
    assert (said.returncode, said.stdout, said.stderr) == (130, "", "sppnet: interrupted\n")


def test_pillow_says_nothing_of_odd_files(shell) -> None:
    from PIL import Image

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        shell("evaluate", "nowhere", "nothing")  # any verb
        for category in (UserWarning, Image.DecompressionBombWarning):
            warnings.warn_explicit("odd file", category, "PIL/Image.py", 1, "PIL.Image")
    assert said == []


def test_names_cannot_control_the_terminal(refused) -> None:
    assert "\x1b" not in refused("predict", "run\x1b[31m\x07", "a.jpg")
    assert "\\x1b[31m" in refused("predict", "run\x1b[31m", "a.jpg")
    assert "\u202e" not in refused("predict", "run\u202egpj.exe", "a.jpg")


@pytest.mark.parametrize(
    "words", [["predict", "nowhere", "a.jpg"], ["predit."], ["fit", "segment."], ["fit", "a"]]
)
def test_messages_have_no_double_full_stop(refused, words: list[str]) -> None:
    assert ".." not in refused(*words)


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_waiting_threads_sleep_unless_the_user_has_chosen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for other in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        # Set first, so that what `main` sets is undone at the end of the test.
        monkeypatch.setenv(other, "x")
        monkeypatch.delenv(other)
    monkeypatch.setenv(name, "active")
    main(["no such verb"])
    assert os.environ.get("OMP_WAIT_POLICY") == ("active" if name == "OMP_WAIT_POLICY" else None)
    monkeypatch.delenv(name)
    main(["no such verb"])
    assert os.environ["OMP_WAIT_POLICY"] == "passive"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator of glibc is adjusted")
def test_freed_memory_is_used_again_unless_the_user_has_chosen(
    program, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faults() -> int:
        return int(program("page_faults", "no such verb").stdout.split()[-1])

    for name in [name for name in os.environ if name.startswith("MALLOC_") or name == "GLIBC_TUNABLES"]:
        monkeypatch.delenv(name)
    kept = faults()
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", str(2**20))
    returned = faults()
    # Huge pages, if the system uses them, are 2 MB.
    assert kept < 20 <= returned


def test_lack_of_memory_is_one_line(refused, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def allocate(words: list[str]) -> int:
        return torch.empty(2**60).numel()

    monkeypatch.setattr("sppnet.cli.check.run", allocate)
    assert refused("check").startswith("sppnet: memory: expected enough free memory, got ")
