from __future__ import annotations

import pytest
import torch

from sppnet.errors import UserError
from sppnet.learn import LinearModel, one_versus_rest


def test_scores_are_inner_products_plus_bias():
    model = LinearModel(torch.tensor([[1.0, 2.0], [0.0, -1.0], [3.0, 0.5]]), torch.tensor([0.5, 0.0, -1.0]))
    scores = model.scores(torch.tensor([[2.0, 4.0], [-1.0, 0.0]]))
    assert scores.tolist() == [[10.5, -4.0, 7.0], [-0.5, 0.0, -4.0]]


def test_linear_model_validates_shapes():
    with pytest.raises(UserError, match=r"LinearModel\.weight.*\[3\]"):
        LinearModel(torch.zeros(3), torch.zeros(3))
    with pytest.raises(UserError, match=r"LinearModel\.bias.*\[2\].*\[3\]"):
        LinearModel(torch.zeros(2, 3), torch.zeros(3))


def test_one_versus_rest():
    targets = one_versus_rest(torch.tensor([2, 0, -1, 1]), 3)
    assert targets.dtype == torch.int8
    assert targets.tolist() == [[-1, -1, 1], [1, -1, -1], [-1, -1, -1], [-1, 1, -1]]
    assert one_versus_rest(torch.zeros(0, dtype=torch.int64), 3).shape == (0, 3)


@pytest.mark.parametrize("labels", [[0, 3], [-2, 0]])
def test_one_versus_rest_rejects_unknown_classes(labels: list[int]):
    with pytest.raises(UserError, match=r"labels.*-1\.\.2"):
        one_versus_rest(torch.tensor(labels), 3)


def test_one_versus_rest_rejects_a_matrix():
    with pytest.raises(UserError, match="labels"):
        one_versus_rest(torch.zeros(2, 2, dtype=torch.int64), 3)
