from __future__ import annotations

import shlex
import shutil
import subprocess

import pytest

from sppnet.cli.commands import all_commands
from sppnet.cli.completion import SHELLS, completion_script
from sppnet.cli.shell import VERBS

COMMANDS = all_commands(VERBS)
CALLS = [
    (["fi"], {"fit"}),
    (["fit", ""], {"detect", "classify", "--help"}),
    (["fit", "detect", "--dev"], {"--device"}),
    (["fit", "detect", "--short"], {"--short-side"}),
    (["fit", "detect", "--device", ""], {"auto", "cpu", "cuda", "mps"}),
    (["fit", "classify", "--device", "c"], {"cpu", "cuda"}),
    (["predict", "run", "--formats", "coco", "c"], {"coco", "csv"}),
    (["predict", "run", "--threshold", ""], set()),
    (["predict", "run", "--over"], {"--overlap", "--overwrite"}),
    (["evaluate", "run", "im"], {"images"}),
    (["evaluate", "a"], {"a.jpg", "a"}),
    (["fit", "detect", "d", "--out", "a"], {"a"}),
    (["--print-completion", ""], set(SHELLS)),
]


def test_bash_completes_verbs_jobs_flags_choices_and_files(tmp_path) -> None:
    """One shell answers all calls."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("needs bash")
    (tmp_path / "images").mkdir()
    (tmp_path / "a").mkdir()
    (tmp_path / "a.jpg").write_bytes(b"")
    script = completion_script("bash", VERBS)
    for words, _ in CALLS:
        script += f"COMP_WORDS=({shlex.join(['sppnet', *words])}); COMP_CWORD={len(words)}; _sppnet\n"
        script += 'echo "${COMPREPLY[*]}"\n'
    said = subprocess.run([bash, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    found = [set(line.split()) for line in said.stdout.splitlines()]
    assert found == [wanted for _, wanted in CALLS]


@pytest.mark.parametrize("shell", SHELLS)
def test_scripts_name_every_command_flag_and_choice(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    from sppnet.cli import main

    assert main(["--print-completion", shell]) == 0
    script = capsys.readouterr().out
    for command in COMMANDS:
        assert command.words[-1] in script
        for flag in command.table():
            assert flag.positional or flag.name.removeprefix("--") in script
            assert all(choice in script for choice in flag.choices)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_scripts_are_valid_where_the_shell_is_installed(shell: str) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"needs {shell}")
    script = completion_script(shell, VERBS)
    subprocess.run([program, "-n"], input=script, text=True, check=True)


def test_another_shell_is_refused(refused) -> None:
    assert "expected one of bash, zsh, fish" in refused("--print-completion", "tcsh")
    assert "expected one of bash, zsh, fish" in refused("--print-completion")
