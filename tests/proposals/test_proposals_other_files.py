import numpy as np
import pytest
import torch
from scipy.io import savemat

from sppnet.errors import UserError
from sppnet.proposals import edge_boxes, proposals_for, read_proposals
from sppnet.structures import ImageSize


def cell(values):
    out = np.empty((len(values), 1), dtype=object)
    for i, value in enumerate(values):
        out[i, 0] = value
    return out


def test_mat_files_are_rows_first_counted_from_one(tmp_path):
    path = tmp_path / "voc.mat"
    boxes = [
        np.array([[1, 2, 30, 40], [5, 6, 7, 8]], dtype=np.float64),
        np.array([[1, 1, 9, 9]], dtype=np.uint16),
    ]
    savemat(path, {"images": cell(["000001", "000002"]), "boxes": cell(boxes)})
    table = read_proposals(path)
    assert table["000001"].tolist() == [[1, 0, 40, 30], [5, 4, 8, 7]]
    found = proposals_for(table, "JPEGImages/000002.jpg", ImageSize(20, 20))
    assert found.boxes.xyxy.tolist() == [[0, 0, 9, 9]]


@pytest.mark.parametrize(
    "content",
    [
        {"images": cell(["a"])},
        {"images": cell(["a", "b"]), "boxes": cell([np.ones((1, 4))])},
        {"images": cell(["a"]), "boxes": cell([np.ones((2, 3))])},
    ],
)
def test_other_mat_files(tmp_path, content):
    savemat(tmp_path / "x.mat", content)
    with pytest.raises(UserError, match=r"x\.mat"):
        read_proposals(tmp_path / "x.mat")


def test_no_mat_file(tmp_path):
    (tmp_path / "x.mat").write_bytes(b"nothing of the kind" * 20)
    with pytest.raises(UserError, match="MATLAB"):
        read_proposals(tmp_path / "x.mat")


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "x.parquet"
    columns = {"image": ["a.jpg", "a.jpg"], "x0": [0, 1], "y0": [0, 2], "x1": [5, 6], "y1": [5, 7]}
    parquet.write_table(pyarrow.table({**columns, "score": [0.1, 0.9]}), path)
    assert read_proposals(path)["a.jpg"].tolist() == [[1, 2, 6, 7], [0, 0, 5, 5]]
    parquet.write_table(pyarrow.table({"image": ["a.jpg"]}), path)
    with pytest.raises(UserError, match="columns"):
        read_proposals(path)


def test_no_edge_model(tmp_path):
    with pytest.raises(UserError, match="edge model"):
        edge_boxes(torch.rand(3, 20, 20), tmp_path / "none.yml.gz")
