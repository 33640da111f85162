"""Completion of verbs, jobs, flags, choices and paths for bash, zsh and fish."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence

from sppnet.cli.commands import Command, all_commands
from sppnet.cli.flag_table import Flag
from sppnet.errors import UserError

__all__ = ["SHELLS", "completion_script"]

SHELLS = ("bash", "zsh", "fish")
_HELP = ("--help", "--help-all")


def completion_script(shell: str, verbs: Mapping[str, str]) -> str:
    """Generate a completion script for a shell.

    Args:
        shell: ``bash``, ``zsh`` or ``fish``.
        verbs: descriptions of the verbs by name.

    Raises:
        UserError: the shell is not supported.
    """
    writers = {"bash": _bash, "zsh": _zsh, "fish": _fish}
    if shell not in writers:
        raise UserError("--print-completion", "one of " + ", ".join(SHELLS), repr(shell))
    return "\n".join(writers[shell](all_commands(verbs))) + "\n"


def _names(flag: Flag) -> list[str]:
    return [flag.name, *flag.aliases]


def _jobs(commands: Sequence[Command], verb: str) -> list[Command]:
    return [command for command in commands if command.words[0] == verb and len(command.words) > 1]


_BASH_END = (
    "  esac",
    "  if [[ $cur == -* ]]; then",
    '    COMPREPLY=($(compgen -W "$flags" -- "$cur"))',
    "  elif [[ -n $values ]]; then",
    '    COMPREPLY=($(compgen -W "$values" -- "$cur"))',
    "  elif [[ $kind == folder ]]; then",
    "    compopt -o filenames 2>/dev/null",
    '    mapfile -t COMPREPLY < <(compgen -d -- "$cur")',
    "  elif [[ $kind == path ]]; then",
    "    compopt -o filenames 2>/dev/null",
    '    mapfile -t COMPREPLY < <(compgen -f -- "$cur")',
    "  fi",
    "}",
    "complete -F _sppnet sppnet",
)


def _bash(commands: Sequence[Command]) -> Iterator[str]:
    verbs = [command for command in commands if len(command.words) == 1]
    with_jobs = [command.name for command in verbs if command.flags is None]
    yield from (
        "# bash completion of sppnet: source this file, or put it into",
        "# ~/.local/share/bash-completion/completions/sppnet",
        "_sppnet() {",
        "  local cur=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]} first=2 i flag='' distance=0",
        "  COMPREPLY=()",
        "  if ((COMP_CWORD == 1)); then",
        f'    COMPREPLY=($(compgen -W "{_listed(verbs)} --help --version --print-completion" -- "$cur"))',
        "    return",
        "  fi",
        "  if [[ $command == --print-completion ]]; then",
        f'    COMPREPLY=($(compgen -W "{" ".join(SHELLS)}" -- "$cur"))',
        "    return",
        "  fi",
        f"  case $command in {'|'.join(with_jobs)})",
        "    if ((COMP_CWORD == 2)); then",
        "      case $command in",
    )
    for verb in with_jobs:
        jobs = " ".join(job.words[1] for job in _jobs(commands, verb))
        yield f'        {verb}) COMPREPLY=($(compgen -W "{jobs} --help" -- "$cur")) ;;'
    yield from (
        "      esac",
        "      return",
        "    fi",
        '    command="$command ${COMP_WORDS[2]}" first=3 ;;',
        "  esac",
        "  # The flag of the current word is the last one before it.",
        "  for ((i = COMP_CWORD - 1; i >= first; i--)); do",
        "    ((distance += 1))",
        "    if [[ ${COMP_WORDS[i]} == --* ]]; then flag=${COMP_WORDS[i]}; break; fi",
        "  done",
        "  local flags='' values='' kind=path",
        "  case $command in",
    )
    for command in commands:
        if command.flags is not None:
            yield from _bash_command(command)
    yield from _BASH_END


def _bash_command(command: Command) -> Iterator[str]:
    table = command.table()
    flags = [name for flag in table if not flag.positional for name in _names(flag)]
    yield f"    {shlex.quote(command.name)})"
    yield f'      flags="{" ".join([*flags, *_HELP])}"'
    yield "      case $flag:$distance in"
    for flag in table:
        if flag.positional or not flag.metavar:
            continue
        patterns = "|".join(f"{name}:{'*' if flag.several else 1}" for name in _names(flag))
        if flag.choices:
            yield f'        {patterns}) values="{" ".join(flag.choices)}" ;;'
        elif flag.path is None:
            yield f"        {patterns}) kind=text ;;"
        elif flag.path.folder:
            yield f"        {patterns}) kind=folder ;;"
    yield "      esac ;;"


def _listed(commands: Sequence[Command]) -> str:
    return " ".join(command.name for command in commands)


def _zsh(commands: Sequence[Command]) -> Iterator[str]:
    verbs = [command for command in commands if len(command.words) == 1]
    yield from (
        "#compdef sppnet",
        "# zsh completion of sppnet: write this to a file named _sppnet in a folder of $fpath",
        "_sppnet() {",
        "  local context state state_descr line",
        "  typeset -A opt_args",
        "  if ((CURRENT == 2)); then",
        "    local -a verbs=(",
        *(f"      {_described(command.words[0], command.help)}" for command in verbs),
        "      --help --version --print-completion",
        "    )",
        "    _describe verb verbs",
        "    return",
        "  fi",
        "  local command=$words[2]",
        "  shift words; ((CURRENT -= 1))",
        "  case $command in",
        "    --print-completion)",
        f"      compadd {' '.join(SHELLS)}; return ;;",
    )
    for verb in verbs:
        if verb.flags is None:
            yield f"    {verb.name})"
            yield "      if ((CURRENT == 2)); then"
            yield "        local -a jobs=("
            yield from (
                f"          {_described(job.words[1], job.help)}" for job in _jobs(commands, verb.name)
            )
            yield "        )"
            yield "        _describe job jobs; return"
            yield "      fi"
            yield '      command="$command $words[2]"; shift words; ((CURRENT -= 1)) ;;'
    yield from ("  esac", "  case $command in")
    for command in commands:
        if command.flags is not None:
            yield f"    {shlex.quote(command.name)})"
            yield "      _arguments -s \\"
            yield from (f"        {spec} \\" for flag in command.table() for spec in _zsh_specs(flag))
            yield "        '--help[show the help]' '--help-all[show the help with all flags]' ;;"
    yield from (
        "  esac",
        "}",
        'if [[ $funcstack[1] == _sppnet ]]; then _sppnet "$@"; else compdef _sppnet sppnet; fi',
    )


def _zsh_specs(flag: Flag) -> Iterator[str]:
    action = _zsh_action(flag)
    if flag.positional:
        place = "*" if flag.several or flag.metavar.endswith("...") else ""
        yield shlex.quote(f"{place}:{_zsh_text(flag.metavar)}:{action}")
        return
    for name in _names(flag):
        spec = f"{name}[{_zsh_text(flag.help)}]"
        if flag.metavar:
            many = "*-*:" if flag.several else ""
            spec += f":{many}{_zsh_text(flag.metavar)}:{action}"
        yield shlex.quote(spec)


def _zsh_action(flag: Flag) -> str:
    if flag.choices:
        return f"({' '.join(flag.choices)})"
    if flag.path is not None:
        return "_files -/" if flag.path.folder else "_files"
    return "_files" if flag.positional else " "


def _zsh_text(text: str) -> str:
    for special in ("\\", "[", "]", ":"):
        text = text.replace(special, f"\\{special}")
    return text


def _described(word: str, text: str) -> str:
    return shlex.quote(f"{word}:{text.replace(':', chr(92) + ':')}")


def _fish(commands: Sequence[Command]) -> Iterator[str]:
    verbs = [command for command in commands if len(command.words) == 1]
    yield from (
        "# fish completion of sppnet: write this to ~/.config/fish/completions/sppnet.fish",
        "function __sppnet_after",
        "    set -l words (commandline -opc)",
        "    test (count $words) -eq (math (count $argv) + 1)",
        '    and test "$words[2..-1]" = "$argv"',
        "end",
        "function __sppnet_in",
        "    set -l words (commandline -opc)",
        "    set -l last (math (count $argv) + 1)",
        '    test (count $words) -ge $last; and test "$words[2..$last]" = "$argv"',
        "end",
        "complete -c sppnet -f",
        "complete -c sppnet -n __sppnet_after -l version -d 'print the version'",
        f"complete -c sppnet -n __sppnet_after -l print-completion -xa '{' '.join(SHELLS)}'",
    )
    for verb in verbs:
        yield f"complete -c sppnet -n __sppnet_after -a {verb.name} -d {_fish_text(verb.help)}"
        for job in _jobs(commands, verb.name):
            at = f"-n '__sppnet_after {verb.name}' -a {job.words[1]}"
            yield f"complete -c sppnet {at} -d {_fish_text(job.help)}"
    for command in commands:
        if command.flags is None:
            continue
        at = f"complete -c sppnet -n '__sppnet_in {command.name}'"
        for flag in command.table():
            if flag.positional:
                yield f"{at} -F"
                continue
            for name in _names(flag):
                yield f"{at} -l {name.removeprefix('--')}{_fish_value(flag)} -d {_fish_text(flag.help)}"
        yield f"{at} -l help -d 'show the help'"
        yield f"{at} -l help-all -d 'show the help with all flags'"


def _fish_value(flag: Flag) -> str:
    if not flag.metavar:
        return ""
    if flag.choices:
        return f" -xa '{' '.join(flag.choices)}'"
    if flag.path is None:
        return " -x"
    return " -xa '(__fish_complete_directories)'" if flag.path.folder else " -rF"


def _fish_text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
