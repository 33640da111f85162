from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from sppnet.backbones import load_backbone
from sppnet.classify import NetworkOptions
from sppnet.classify.network import make_network
from sppnet.classify.transfer import (
    Feature,
    image_rows,
    in_own_basis,
    random_split,
    see,
    svm_accuracy,
)
from sppnet.errors import UserError
from sppnet.ops import spatial_pyramid_pool

IMAGE = torch.rand(3, 60, 90, generator=torch.Generator().manual_seed(1))


def test_sights() -> None:
    backbone = load_backbone("zf5-small/32")
    assert see(IMAGE, "full", 64, backbone).shape == (1, 3, 64, 96)
    assert see(IMAGE, "warp", 64, backbone).shape == (1, 3, 64, 64)
    full, crop = see(IMAGE, "full", 64, backbone), see(IMAGE, "crop", 64, backbone)
    assert torch.equal(crop, full[..., 16:80])


def test_features_are_the_layers_of_the_network() -> None:
    network = make_network("zf5-small/32", 3, NetworkOptions((2, 1), (12, 7), start="he"), 64).eval()
    given = see(IMAGE, "crop", 64, network.backbone)
    wanted = (
        Feature("map", "conv5"),
        Feature("pooled", "conv5", (2, 1)),
        Feature("fc6", "fc6"),
        Feature("fc7", "fc7"),
    )
    found = image_rows(network, given, wanted)
    with torch.inference_mode():
        (maps,) = network.backbone(given)
        pooled = spatial_pyramid_pool(maps, (2, 1))
        fc6 = network.head.fc6(pooled).relu()
        fc7 = network.head.fc7(fc6).relu()
    for name, row in (("map", maps.flatten(1)), ("pooled", pooled), ("fc6", fc6), ("fc7", fc7)):
        assert torch.allclose(found[name], normalize(row[0], dim=0), atol=1e-6)
    with pytest.raises(UserError, match="conv5, fc6, fc7"):
        image_rows(network, given, [Feature("x", "fc9")])


def test_own_basis_keeps_inner_products_and_svms() -> None:
    chance = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    rows = normalize(torch.randn(60, 400, generator=chance) + 2 * torch.eye(3, 400)[labels], dim=1)
    rows[7] = rows[1]  # the same image twice
    short = in_own_basis(rows)
    assert short.shape == (60, 60)
    assert torch.allclose(short @ short.T, rows @ rows.T, atol=1e-4)
    train, test = random_split(labels, 12, 5, chance)
    one, other = (svm_accuracy(r, labels, train, test, 1.0) for r in (rows, short))
    assert one == other
    assert 0.4 < one <= 1


def test_random_splits_are_disjoint_and_have_the_requested_sizes() -> None:
    labels = torch.tensor([0] * 8 + [1] * 5)
    train, test = random_split(labels, 4, 3, torch.Generator().manual_seed(0))
    assert labels[train].bincount().tolist() == [4, 4]
    assert labels[test].bincount().tolist() == [3, 1]
    assert not set(train.tolist()) & set(test.tolist())
    with pytest.raises(UserError, match="more than 5"):
        random_split(labels, 5, 3, torch.Generator())
