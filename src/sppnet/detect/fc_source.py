"""Features of proposals after fully connected layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from sppnet.detect.fc_head import FullyConnected
from sppnet.detect.sources import CropSource, MapSource
from sppnet.features.keys import key_of
from sppnet.features.store import StageStore
from sppnet.learn import LinearModel
from sppnet.structures import Boxes

_PIECE = 512  # number of proposals per step, which bounds the memory of their features


@dataclass
class FcSource:
    """The outputs of fc6 or fc7 for the features of another source, cached as float16.

    Attributes:
        base: source of the pooled features.
        head: the layers.
        head_key: digest of the layers.
        layer: the layer whose outputs are the features.
        store: cache of the outputs; None to compute them on demand.
    """

    base: MapSource | CropSource
    head: FullyConnected
    head_key: str
    layer: Literal["fc6", "fc7"]
    store: StageStore | None

    @property
    def windows(self) -> Sequence[Boxes]:
        """The proposals of each image."""
        return self.base.windows

    @property
    def length(self) -> int:
        """Length of a feature vector."""
        return self.head.fc7.in_features if self.layer == "fc6" else self.head.fc7.out_features

    def _make(self, i: int) -> dict[str, Tensor]:
        place = self.head.fc6.weight.device
        parts = [torch.zeros(0, self.length, dtype=torch.float16)]
        for which in torch.arange(len(self.windows[i])).split(_PIECE):
            rows = self.base.rows(i, which).to(place)
            parts.append(self.head.features(rows, self.layer).to("cpu", torch.float16))
        return {"rows": torch.cat(parts)}

    def every(self, i: int) -> Tensor:
        """Return the features of all proposals of image i, float16 ``[N, D]``."""
        base = "" if self.store is None else self.base.row_key(i)
        if self.store is None or not base:
            return self._make(i)["rows"]
        return self.store.get("fc", key_of("fc", base, self.head_key, self.layer), lambda: self._make(i))[
            "rows"
        ]

    def rows(
        self, i: int, which: Tensor, *, flipped: bool = False, draw: torch.Generator | None = None
    ) -> Tensor:
        """See `RowSource`; neither flipped nor at a random scale."""
        assert not flipped
        assert draw is None
        return self.every(i)[which].float()

    def scores(self, i: int, model: LinearModel, which: Tensor | None = None) -> Tensor:
        """See `RowSource`."""
        return model.scores((self.every(i) if which is None else self.every(i)[which]).float())

    def at(self, i: int, boxes: Boxes) -> FcSource:
        """See `RowSource`."""
        return replace(self, base=self.base.at(i, boxes), store=None)

    def lines(self, i: int) -> Tensor:
        """See `RowSource`."""
        return self.base.lines(i)
