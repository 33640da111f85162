"""Adapters: a new source of networks is one module and one line; the shipped table tells the truth."""

from __future__ import annotations

import sys
import types
from dataclasses import asdict

import pytest
import torch
from torch import nn

from sppnet.backbones import backbone_from_spec, load_backbone
from sppnet.backbones.catalogue import read_catalogue
from sppnet.backbones.registry import ADAPTERS, Adapter, LoadedTrunk, find_adapter
from sppnet.errors import UserError


class _Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, 2, 1)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (torch.relu(self.conv(images)),)


def test_a_toy_adapter_is_one_module_and_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("toy_nets")
    module.make = lambda name, layers, weights, *, pretrained: LoadedTrunk(
        _Toy(), ("conv",), (0.5, 0.5, 0.5), (1.0, 1.0, 1.0)
    )
    monkeypatch.setitem(sys.modules, "toy_nets", module)
    monkeypatch.setattr(
        "sppnet.backbones.registry.ADAPTERS", [*ADAPTERS, Adapter("toy:.+", "toy:NAME", "toy_nets")]
    )
    backbone = load_backbone("toy:one")
    (info,) = backbone.layers
    assert (info.channels, info.grid.stride, info.grid.first) == (5, 2.0, 0.5)
    again = backbone_from_spec(backbone.spec())
    again.load_state_dict(backbone.state_dict())
    images = torch.rand(1, 3, 20, 30)
    assert torch.equal(again(images)[0], backbone(images)[0])
    with pytest.raises(UserError, match=r"expected builtin, .*, toy:NAME"):
        find_adapter("other:one")


def test_the_shipped_table_lists_what_loads() -> None:
    entries = read_catalogue()
    names = [entry.name for entry in entries]
    assert len(names) == len(set(names))
    for entry in entries:
        assert find_adapter(entry.name)
        assert len(entry.layers) == len(entry.strides) == len(entry.channels) >= 1
        assert entry.licence
    assert {entry.name for entry in entries if entry.bccd_ap50 is not None} >= {"builtin"}


@pytest.mark.parametrize("name", ["builtin", "torchvision:squeezenet1_0", "zf5"])
def test_strides_and_channels_of_the_table(name: str) -> None:
    (entry,) = [one for one in read_catalogue() if one.name == name]
    backbone = load_backbone(name if ":" not in name else f"random:{name}")
    assert entry.layers == tuple(layer.name for layer in backbone.layers)
    assert entry.strides == tuple(layer.grid.stride for layer in backbone.layers)
    assert entry.channels == tuple(layer.channels for layer in backbone.layers)


def test_the_verb_prints_the_table_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    import json

    from sppnet.cli import main

    assert main(["backbones", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in document["backbones"]] == [entry.name for entry in read_catalogue()]
    assert set(document["backbones"][0]) == set(asdict(read_catalogue()[0]))
    assert main(["backbones"]) == 0
    assert "squeezenet1_0" in capsys.readouterr().out


def test_the_document_shows_the_figures_of_the_table() -> None:
    from pathlib import Path

    from sppnet.recipes.backbone_table import DOCUMENT, FIGURES, document

    text = (Path(__file__).parents[2] / DOCUMENT).read_text(encoding="utf-8")
    assert text == document(read_catalogue())
    for entry in read_catalogue():
        assert (f"`{entry.name}` |" in text) == any(getattr(entry, name) is not None for name in FIGURES)
