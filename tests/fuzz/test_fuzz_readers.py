"""A short run of the fuzzer of readers; ``python tests/fuzz/readers.py`` is the long one."""

from pathlib import Path

import pytest
from readers import run


@pytest.mark.filterwarnings("ignore")
def test_mutated_files_are_read_or_refused(tmp_path: Path) -> None:
    outcomes = run(300, seed=0, root=tmp_path)
    assert outcomes["failed"] == 0
    assert outcomes["read"] > 60
    assert outcomes["refused"] > 60
