"""Output of a command: tables, or one JSON document on stdout and everything else on stderr."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator, Mapping, Sequence
from typing import cast

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sppnet.errors import visible

__all__ = ["Screen", "metric_tables", "number", "opened_screen", "summary_rows"]


class Screen:
    """The output of a command.

    Args:
        json: print one JSON document on stdout and everything else on stderr, instead of tables on stdout.
    """

    def __init__(self, *, json: bool) -> None:
        self.json = json
        self._stdout = sys.stdout
        self._console = Console(stderr=json, highlight=False, soft_wrap=True)

    def say(self, line: str) -> None:
        """Print a line of text."""
        self._console.print(visible(line), markup=False)

    def table(self, title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Print a table with right-aligned columns of numbers, unless there is a JSON document."""
        if self.json:
            return
        table = Table(title=Text(visible(title)), title_justify="left")
        for column, name in enumerate(head):
            numeric = all(isinstance(row[column], (int, float, type(None))) for row in rows)
            table.add_column(Text(visible(name)), justify="right" if numeric else "left")
        for row in rows:
            table.add_row(*(Text(visible(number(cell))) for cell in row))
        self._console.print(table)

    def document(self, content: Mapping[str, object]) -> None:
        """Print the JSON document, if requested."""
        if self.json:
            from sppnet.runs import json_text

            # Bytes of file names that are not UTF-8 are replaced by escapes, which are valid in JSON.
            text = json_text(content).encode("utf-8", "backslashreplace").decode()
            self._stdout.write(text + "\n")
            self._stdout.flush()


@contextlib.contextmanager
def opened_screen(*, json: bool) -> Generator[Screen]:
    """Open a screen; with ``json``, stdout of other code is redirected to stderr while the block runs."""
    screen = Screen(json=json)
    if not json:
        yield screen
        return
    with contextlib.redirect_stdout(sys.stderr):
        yield screen


def number(value: object) -> str:
    """Format a cell of a table; floats have four significant digits."""
    if isinstance(value, bool) or value is None:
        return "-" if value is None else str(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def summary_rows(summary: Mapping[str, object]) -> list[tuple[str, object]]:
    """List numbers and strings of a mapping by name, with dotted names for nested mappings."""
    rows: list[tuple[str, object]] = []
    for name, value in summary.items():
        if isinstance(value, Mapping):
            inner = summary_rows(cast("Mapping[str, object]", value))
            rows += [(f"{name}.{inside}", content) for inside, content in inner]
        elif not isinstance(value, (list, tuple)):
            rows.append((name, value))
    return rows


def metric_tables(metrics: Mapping[str, object]) -> list[tuple[str, Sequence[str], list[Sequence[object]]]]:
    """Convert metrics to tables (title, head, rows): all metrics, and metrics per class."""
    whole = {name: value for name, value in metrics.items() if name != "per_class"}
    tables: list[tuple[str, Sequence[str], list[Sequence[object]]]] = [
        ("Figures", ("", "value"), list(summary_rows(whole)))
    ]
    per_class = cast("Mapping[str, Mapping[str, object]]", metrics.get("per_class", {}))
    if per_class:
        head = list(dict.fromkeys(column for values in per_class.values() for column in values))
        rows = [[name, *(values.get(column) for column in head)] for name, values in per_class.items()]
        tables.append(("Classes", ["class", *head], list(rows)))
    return tables
