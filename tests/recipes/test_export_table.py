from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sppnet.data import write_voc
from sppnet.errors import UserError
from sppnet.recipes import export_table
from sppnet.structures import Boxes, GroundTruth, ImageSize


@pytest.fixture
def squares(tmp_path: Path) -> Path:
    """A folder with a data set of the name and the splits of BCCD: a dark square on each image."""
    root, size = tmp_path / "data" / "bccd", ImageSize(96, 128)
    for split in ("train", "val"):
        items = []
        for number in range(6):
            pixels = np.full((96, 128, 3), 200, np.uint8)
            left, top = 10 + 8 * number, 12 + 4 * number
            pixels[top : top + 36, left : left + 36] = 20
            box = Boxes(torch.tensor([[left, top, left + 36, top + 36]], dtype=torch.float32), size)
            truth = GroundTruth.make(box, torch.tensor([0]), ("square",))
            items.append((f"{split}{number}", pixels, truth))
        write_voc(root, items, split)
    return root.parent


@pytest.mark.exhaustive  # fits, exports in three precisions and measures
def test_the_table_has_a_row_for_torch_and_for_each_precision_and_is_written(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    document = tmp_path / "export.md"
    document.write_text(f"# Export\n{export_table.START}\nold\n{export_table.END}\nafter\n")
    monkeypatch.setattr(export_table, "DOCUMENT", document)
    export_table.main(["--data", str(squares), "--backbones", "builtin", "--rounds", "1", "--write"])
    printed = capsys.readouterr().out.strip()
    assert document.read_text() == f"# Export\n{export_table.START}\n{printed}\n{export_table.END}\nafter\n"
    head, _, *rows = [line.strip("| ").split(" | ") for line in printed.splitlines()]
    assert [row[head.index("by")] for row in rows] == ["torch", "float32", "float16", "int8"]
    accuracy = head.index("AP50 / AP75, accuracy")
    assert rows[0][accuracy] == rows[1][accuracy]
    sizes = [float(row[head.index("MB")]) for row in rows[1:]]
    assert sizes == sorted(sizes, reverse=True)


def test_a_folder_without_the_data_sets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="bccd or caltech101-small"):
        export_table.main(["--data", str(tmp_path)])
