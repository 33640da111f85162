"""The measured grids against receptive-field arithmetic on plain sequences, and on known networks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from sppnet.backbones.geometry import count_channels, measure_grids, smallest_side
from sppnet.errors import UserError
from sppnet.structures import Grid


class _One(nn.Module):
    """A network as a trunk of one map."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self.net(x),)


def _arithmetic(layers: list[tuple[str, int, int, int]]) -> Grid:
    """Stride and first centre by the closed form: a layer moves the first centre by ((k-1)/2 - p) strides."""
    stride, first = 1, 0.5
    for _, kernel, step, padding in layers:
        first += ((kernel - 1) / 2 - padding) * stride
        stride *= step
    return Grid(float(stride), first)


def _field(layers: list[tuple[str, int, int, int]]) -> int:
    """Pixels a side that one cell depends on, and the least that an image must have."""
    field, stride = 1, 1
    for _, kernel, step, _ in layers:
        field += (kernel - 1) * stride
        stride *= step
    return field


def _layer() -> st.SearchStrategy[tuple[str, int, int, int]]:
    return st.tuples(
        st.sampled_from(["conv", "max", "mean", "relu"]),
        st.integers(1, 5),
        st.integers(1, 2),
        st.integers(0, 2),
    ).map(lambda t: (t[0], 1, 1, 0) if t[0] == "relu" else (*t[:3], min(t[3], t[1] // 2)))


def _build(layers: list[tuple[str, int, int, int]], ceil: bool) -> nn.Module:
    parts: list[nn.Module] = [nn.Conv2d(3, 4, 1)]
    for kind, kernel, step, padding in layers:
        if kind == "conv":
            parts += [nn.Conv2d(4, 4, kernel, step, padding, bias=False), nn.BatchNorm2d(4)]
        elif kind == "max":
            parts.append(nn.MaxPool2d(kernel, step, padding, ceil_mode=ceil))
        elif kind == "mean":
            parts.append(nn.AvgPool2d(kernel, step, padding, ceil_mode=ceil))
        else:
            parts.append(nn.ReLU(inplace=True))
    return _One(nn.Sequential(*parts)).eval()


@settings(deadline=None, max_examples=20)
@given(st.lists(_layer(), min_size=1, max_size=6), st.booleans())
def test_equals_the_closed_form_on_sequences(layers: list[tuple[str, int, int, int]], ceil: bool) -> None:
    assume(_field(layers) <= 48 and _arithmetic(layers).stride <= 16)
    grids, multiple = measure_grids(_build(layers, ceil), "a sequence", long=256, short=48)
    assert grids == (_arithmetic(layers),)
    assert multiple == 1


def test_weights_play_no_part_and_stay() -> None:
    net = _build([("conv", 3, 2, 1), ("conv", 5, 2, 0)], False)
    for parameter in net.parameters():
        nn.init.constant_(parameter, -1.0)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    assert measure_grids(net, "n")[0] == (Grid(4.0, 0.5 + 2 * 2),)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_measures_without_gradients_around() -> None:
    net = _build([("conv", 3, 2, 1)], False)
    with torch.inference_mode():
        assert measure_grids(net, "n")[0] == (Grid(2.0, 0.5),)


class _Gated(nn.Module):
    """Squeeze and excite, functional pools, an in-place sum of two branches, a scaled branch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.narrow, self.widen = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)
        self.branch = nn.Conv2d(8, 8, 3, 2, 1)
        self.shortcut = nn.Conv2d(8, 8, 1, 2)
        self.gamma = nn.Parameter(torch.full((8, 1, 1), -1e-6))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = functional.silu(self.stem(x))
        gate = x.mean((2, 3), keepdim=True)
        x = x * torch.sigmoid(self.widen(functional.relu(self.narrow(gate))))
        y = self.shortcut(x)
        y += self.gamma * self.branch(x)
        return x, functional.max_pool2d(y, 3, 2, ceil_mode=True)


def test_gates_sums_and_functional_pools() -> None:
    assert measure_grids(_Gated().eval(), "gated")[0] == (Grid(2.0, 0.5), Grid(8.0, 4.5))


def test_borders_that_reach_the_middle_are_got_away_from() -> None:
    # As in a large convnext: on 512 pixels, 32 cells, padding reaches 36 cells into it from each side.
    deep = nn.Sequential(nn.Conv2d(3, 4, 16, 16), *(nn.Conv2d(4, 4, 7, padding=3) for _ in range(12)))
    assert measure_grids(_One(deep), "deep") == ((Grid(16.0, 8.0),), 1)


class _Scaled(nn.Module):
    """Weights that are standardised and scaled before each use, as in an nfnet."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2, 1)
        self.gain = nn.Parameter(torch.ones(4, 1, 1, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        scale = (self.gain * 0.5).view(-1)
        flat = self.conv.weight.view(1, 4, -1)
        weight = functional.batch_norm(flat, None, None, weight=scale, training=True)
        return (functional.conv2d(x, weight.view_as(self.conv.weight), stride=2, padding=1),)


def test_weights_may_be_computed() -> None:
    assert measure_grids(_Scaled(), "scaled")[0] == (Grid(2.0, 0.5),)


class _Starred(nn.Module):
    """Blocks that multiply two branches, or a map by itself, as in a starnet or a convformer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 2, 1)
        self.one, self.other = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.stem(x)
        for _ in range(12):
            x = x + 0.5 * functional.relu6(self.one(x)) * self.other(x) + self.one(x) ** 2
        return (x,)


def test_products_of_maps_are_seen_as_their_sums() -> None:
    assert measure_grids(_Starred(), "starred")[0] == (Grid(2.0, 0.5),)


class _Shrinking(nn.Module):
    """As many cells as the square root of the image's sides."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 1, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        height, width = (int(side**0.5) for side in x.shape[2:])
        return (functional.adaptive_avg_pool2d(self.conv(x), (height, width)),)


def test_cells_that_grow_with_the_image_are_refused() -> None:
    with pytest.raises(UserError, match=r"shrinking: expected cells on a regular grid, got different grids"):
        measure_grids(_Shrinking(), "shrinking")


def test_a_network_that_cannot_be_measured_is_refused_by_name() -> None:
    large = nn.Conv2d(3, 4, 80, 2)
    assert measure_grids(_One(large), "large", short=80)[0] == (Grid(2.0, 40.0),)
    with pytest.raises(UserError, match=r"large: expected a network whose cells can be located"):
        measure_grids(_One(large), "large")


class _Attending(nn.Module):
    """A gate that is convolved along the channels and spread over the map, on one of two branches."""

    def __init__(self, gate_first: bool) -> None:
        super().__init__()
        self.gate_first = gate_first
        self.stem, self.branch = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1)
        self.along = nn.Parameter(torch.ones(1, 1, 3))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.stem(x)
        y = self.branch(x)
        gate = y.mean((2, 3)).view(len(y), 1, -1)
        gate = torch.sigmoid(functional.conv1d(gate, self.along, padding=1)).view(*y.shape[:2], 1, 1)
        gate = gate.expand_as(y)
        return (functional.avg_pool2d(x, 2) + (gate * y if self.gate_first else y * gate),)


@pytest.mark.parametrize("gate_first", [False, True])
def test_a_gate_takes_nothing_from_its_branch(gate_first: bool) -> None:
    # The middle of 1.5 and 0.5, the centres of the two branches' first cells.
    assert measure_grids(_Attending(gate_first), "attending")[0] == (Grid(4.0, 1.0),)


class _Same(nn.Module):
    """TensorFlow's padding: all the odd pixel on the far side, depending on the size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        pads = [0 if n % 2 else 1 for n in (x.shape[3], x.shape[2])]
        return (self.conv(functional.pad(x, (1 - pads[0], 1, 1 - pads[1], 1))),)


def test_padding_that_depends_on_the_size_asks_for_multiples() -> None:
    grids, multiple = measure_grids(_Same().eval(), "same")
    assert grids == (Grid(2.0, 1.5),)
    assert multiple == 2


def test_smallest_side_is_the_smallest() -> None:
    net = _One(nn.Sequential(nn.Conv2d(3, 4, 7, 2), nn.MaxPool2d(3, 2, ceil_mode=True)))
    side = smallest_side(net)
    assert side == 9
    assert net(torch.zeros(1, 3, 9, 9))[0].shape[2:] == (1, 1)
    with pytest.raises(RuntimeError):
        net(torch.zeros(1, 3, side - 1, side - 1))


def test_smallest_side_of_a_padded_network_is_one() -> None:
    assert smallest_side(_build([("conv", 3, 2, 1)] * 3, False)) == 1


class _Patches(nn.Module):
    """Positions learned for one size, as in a vision transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 16, 16)
        self.position = nn.Parameter(torch.zeros(1, 4, 14, 14))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self.conv(x) + self.position,)


def test_a_network_for_one_size_is_refused_by_name() -> None:
    with pytest.raises(
        UserError, match=r"patches: expected a network that accepts images of any size.*97 x 131"
    ):
        count_channels(_Patches().eval(), "patches")


class _ChannelsLast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self.conv(x).permute(0, 2, 3, 1),)


def test_maps_with_channels_last_are_refused() -> None:
    with pytest.raises(UserError, match="shapes"):
        count_channels(_ChannelsLast().eval(), "swin-like")
