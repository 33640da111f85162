from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sppnet.errors import UserError
from sppnet.proposals import proposals_for, read_proposals
from sppnet.structures import ImageSize

SIZE = ImageSize(50, 100)
LOW, HIGH = st.floats(0, 24, width=32), st.floats(25, 49, width=32)
BOX = st.tuples(LOW, LOW, HIGH, HIGH).map(list)


def written(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@given(
    st.dictionaries(
        st.sampled_from(["a.jpg", "b.png", "c"]), st.lists(BOX, min_size=1, max_size=4), min_size=1
    )
)
@settings(deadline=None, max_examples=40)
def test_three_spellings_of_the_same_windows(
    tmp_path_factory: pytest.TempPathFactory, table: dict[str, list[list[float]]]
) -> None:
    folder = tmp_path_factory.mktemp("p")
    lines = ["x0,image,y0,y1,x1,name"]
    lines += [f"{b[0]!r},{key},{b[1]!r},{b[3]!r},{b[2]!r},cat" for key, boxes in table.items() for b in boxes]
    files = [
        written(folder / "a.json", table),
        written(folder / "b.json", [{"image": key, "boxes": boxes} for key, boxes in table.items()]),
        written(folder / "c.csv", "\n".join(lines) + "\n"),
    ]
    for file in files:
        read = read_proposals(file)
        assert read.keys() == table.keys()
        for key, boxes in table.items():
            assert torch.equal(read[key], torch.tensor(boxes))


def test_scores_order_the_windows(tmp_path: Path) -> None:
    boxes = [[0, 0, 1, 1, 0.5], [0, 0, 2, 2, 0.9], [0, 0, 3, 3, 0.5]]
    read = read_proposals(written(tmp_path / "p.json", {"a": boxes, "b": [*boxes, [0, 0, 9, 9]], "c": []}))
    assert read["a"][:, 2].tolist() == [2, 1, 3]
    assert read["b"][:, 2].tolist() == [1, 2, 3, 9]
    assert read["c"].shape == (0, 4)
    rows = "image,x0,y0,x1,y1,score\na,0,0,1,1,-2\na,0,0,2,2,1e3\n"
    assert read_proposals(written(tmp_path / "p.csv", rows))["a"][:, 2].tolist() == [2, 1]


def test_images_are_found_by_name_stem_or_folder(tmp_path: Path) -> None:
    table = read_proposals(
        written(
            tmp_path / "p.json", {"/other/place/a.jpg": [[1, 2, 30, 40]], "img\\b": [[0, 0, 1, 1]], "c": []}
        )
    )
    assert set(table) == {"a.jpg", "b", "c"}
    found = proposals_for(table, tmp_path / "images" / "a.jpg", SIZE)
    assert found.boxes.xyxy.tolist() == [[1, 2, 30, 40]]
    assert found.boxes.size == SIZE
    assert found.scores.tolist() == [0]
    assert len(proposals_for(table, "images/b.png", SIZE)) == 1
    assert len(proposals_for(table, "c.png", SIZE)) == 0
    with pytest.raises(UserError, match=r"a\.png: expected an entry .* got entries for a\.jpg, b, c"):
        proposals_for(table, "a.png", SIZE)


def test_one_name_in_two_folders(tmp_path: Path) -> None:
    content = {"train/a.jpg": [[0, 0, 1, 1]], "val/a.jpg": [[0, 0, 2, 2]], "val/b.jpg": []}
    table = read_proposals(written(tmp_path / "p.json", content))
    assert set(table) == {"train/a.jpg", "val/a.jpg", "b.jpg"}
    assert proposals_for(table, "/data/val/a.jpg", SIZE).boxes.xyxy.tolist() == [[0, 0, 2, 2]]


def test_windows_are_clipped_but_not_lost(tmp_path: Path) -> None:
    table = {"a": torch.tensor([[-5.0, -5, 200, 20]])}
    assert proposals_for(table, "a.jpg", SIZE).boxes.xyxy.tolist() == [[0, 0, 100, 20]]
    for box in ([100, 0, 120, 20], [0, 50, 5, 60], [-5, 0, 0, 5], [0, -5, 5, 0]):
        table = {"a": torch.tensor([[0.0, 0, 1, 1], box])}
        with pytest.raises(UserError, match="inside the image of 100 x 50"):
            proposals_for(table, "a.jpg", SIZE)


@pytest.mark.parametrize(
    ("name", "content", "got"),
    [
        ("p.txt", "", r"a file that ends in \.json, \.csv, \.parquet or \.mat, got \.txt"),
        ("p.json", "{", "well-formed JSON"),
        ("p.json", "3", "an object or a list, got int"),
        ("p.json", "{}", "at least one proposal, got none"),
        ("p.json", {"a": []}, "at least one proposal, got none"),
        ("p.json", {"a": {"b": 1}}, "a: expected a list of boxes, got dict"),
        ("p.json", {"a": [[0, 0, 1, 1], [0, 0, 1]]}, "a, box 1: expected finite numbers"),
        ("p.json", {"a": [5]}, "a, box 0: expected finite numbers"),
        ("p.json", {"a": [[0, 0, 1, 1, 1, 1]]}, "a, box 0: expected finite numbers"),
        ("p.json", {"a": [["x", 0, 1, 1]]}, "a, box 0: expected finite numbers"),
        ("p.json", '{"a": [[NaN, 0, 1, 1]]}', "a, box 0: expected finite numbers"),
        ("p.json", {"a": [[2, 0, 1, 1]]}, "a, box 0: expected a box"),
        ("p.json", [{"image": "a"}], 'entry 0: expected an object with "image" and "boxes"'),
        ("p.json", [[1, 2, 3, 4]], "entry 0: expected an object"),
        ("p.csv", "", "got an empty file"),
        ("p.csv", "image,x0,y0,x1\n", "columns image, x0, y0, x1, y1, got image, x0, y0, x1"),
        ("p.csv", "image,x0,y0,x1,y1\na,1,2,3\n", "line 2: expected finite numbers"),
        ("p.csv", "image,x0,y0,x1,y1\na,1,2,x,4\n", "line 2: expected finite numbers"),
        ("p.csv", "image,x0,y0,x1,y1\n,1,2,3,4\n", "line 2: expected the name of an image"),
        ("p.csv", "image,x0,y0,x1,y1\n", "at least one proposal, got none"),
    ],
)
def test_broken_files_say_where(tmp_path: Path, name: str, content: object, got: str) -> None:
    path = written(tmp_path / name, content)
    with pytest.raises(UserError, match=got) as caught:
        read_proposals(path)
    assert str(path) in str(caught.value)


def test_no_file_and_no_text(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_proposals(tmp_path / "p.json")
    (tmp_path / "p.csv").write_bytes(b"image,x0,y0,x1,y1\n\xff,1,2,3,4\n")
    with pytest.raises(UserError, match="a CSV file in UTF-8"):
        read_proposals(tmp_path / "p.csv")
