from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from sppnet.cli import main, shell
from sppnet.cli.commands import Command, all_commands
from sppnet.cli.shell import VERBS


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sppnet", *words], capture_output=True, text=True, check=False
    )


def test_help_names_every_verb_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from sppnet.cli import main; code = main(['--help']);"
        "heavy = {'torch', 'numpy', 'tyro', 'rich', 'PIL', 'numba'} & set(sys.modules);"
        "print('heavy:', heavy, file=sys.stderr); sys.exit(code or bool(heavy))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    for verb, what in VERBS.items():
        assert f"  {verb}" in said.stdout
        assert what in said.stdout


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
        (["serve"], "got 'serve'"),
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


def test_exit_codes_of_the_process() -> None:
    """A user's mistake: 2 and one line. A failure of ours: 1 and a traceback."""
    wrong = run("evaluate", "nowhere", "nothing")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.count("\n") == 1
    assert "nowhere: expected a run, got no such folder" in wrong.stderr
    code = (
        "import sys, types; from sppnet.cli import main, shell;"
        "broken = types.ModuleType('sppnet.cli.check'); broken.run = lambda words: 1 // 0;"
        "sys.modules['sppnet.cli.check'] = broken; sys.exit(main(['check']))"
    )
    failed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
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
MISTAKES = [
    ["predict", "nowhere", "a.jpg"],
    ["predict", ".", "a.jpg"],
    ["evaluate", "nowhere", "data"],
    ["fit", "detect", "nowhere", "--out", "x"],
    ["fit", "detect", ".", "--out", "x", "--weights", "nowhere"],
    ["fit", "detect", ".", "--out", "x", "--proposals", "nowhere.json"],
    ["fit", "detect", ".", "--out", __file__],
    ["fit", "classify", "nowhere", "--out", "x"],
    ["train", "classify", "nowhere", "--out", "x"],
    ["train", "classify", ".", "--out", "x", "--resume"],
    ["train", "detect", "nowhere", "--out", "x"],
    ["train", "detect", ".", "--out", "x", "--from-run", "nowhere"],
    ["features", "nowhere.jpg", "--out", "x.npy"],
    ["features", "nowhere*.jpg", "--out", "x.npy"],
    ["features", ".", "--out", "x.npy", "--boxes", "nowhere.json"],
    ["export", "nowhere", "--out", "x.onnx"],
    ["reproduce", "table2", "--data", "nowhere"],
    ["benchmark", "fitting", "--detection", "nowhere"],
    ["benchmark", "classification", "--data", "nowhere"],
    ["benchmark", "detection", "--weights", "nowhere.safetensors"],
]
"""Wrong paths, at least one for each command that takes paths."""
IMPORTS_OF_EACH = """
import contextlib, io, json, sys
from sppnet.cli import main

found = {}
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            code = main(words)
        except SystemExit as stop:
            code = stop.code or 0
    assert code == (0 if words[-1].startswith("--help") else 2), (words, code)
    found[" ".join(words)] = sorted(set(json.loads(sys.argv[2])) & set(sys.modules))
print(json.dumps(found))
"""
INTERRUPTED_IMPORT = """
import builtins, signal, sys
from sppnet.cli import console_main

real, wanted = builtins.__import__, sys.argv[1]

def hooked(name, *rest, **named):
    if name.partition(".")[0] == wanted:
        builtins.__import__ = real
        signal.raise_signal(signal.SIGINT)
    return real(name, *rest, **named)

builtins.__import__ = hooked
sys.argv = ["sppnet", "check"]
console_main()
"""


def test_help_and_wrong_paths_import_nothing_heavy(tmp_path: Path) -> None:
    """One interpreter runs them all; what one imports would be seen after it."""
    helps = [[*command.words, "--help-all"] for command in all_commands(VERBS)]
    calls = [*helps, *MISTAKES, ["--help"]]
    words = [sys.executable, "-c", IMPORTS_OF_EACH, json.dumps(calls), json.dumps(HEAVY)]
    said = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert {call: heavy for call, heavy in json.loads(said.stdout).items() if heavy} == {}


def test_wrong_paths_are_tried_for_every_command_that_takes_paths() -> None:
    def reads_paths(command: Command) -> bool:
        return any(flag.path is not None and flag.path.check is not None for flag in command.table())

    tried = {tuple(words[:2]) for words in MISTAKES} | {(words[0],) for words in MISTAKES}
    assert [c.name for c in all_commands(VERBS) if reads_paths(c) and c.words not in tried] == []


@pytest.mark.parametrize("command", all_commands(VERBS), ids=lambda command: command.name)
def test_help_is_one_screen(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with contextlib.suppress(SystemExit):
        assert main([*command.words, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 100
    with contextlib.suppress(SystemExit):
        main([*command.words, "--help-all"])
    whole = capsys.readouterr().out
    for flag in command.table():
        assert f"  {flag.name}" in whole
        assert flag.help, flag.name


@pytest.mark.parametrize("module", ["tyro", "rich", "numpy"])
def test_an_interrupt_while_libraries_are_imported_is_one_line(module: str) -> None:
    words = [sys.executable, "-c", INTERRUPTED_IMPORT, module]
    said = subprocess.run(words, capture_output=True, text=True, check=False)
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
