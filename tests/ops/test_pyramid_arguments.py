"""Arguments: what is converted, what is refused with a `UserError`; nothing is read out of range."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sppnet.errors import UserError
from sppnet.ops import region_pyramid_pool, region_pyramid_scores, spatial_pyramid_pool

MAPS = torch.randn(2, 3, 5, 7)
GOOD = torch.tensor([[0, 0, 7, 5]])


@pytest.mark.parametrize(
    "box",
    [
        [-1, 0, 3, 3],
        [0, -1, 3, 3],
        [0, 0, 8, 5],
        [0, 0, 7, 6],
        [3, 0, 3, 5],
        [4, 0, 3, 5],
        [0, 2, 7, 2],
        [0, 3, 7, 2],
        [2**62, 0, 2**62 + 1, 5],
        [-(2**63), 0, 2**63 - 1, 5],
        [7, 0, 8, 5],
    ],
)
def test_the_first_region_out_of_range_is_named(box: list[int]) -> None:
    regions = [GOOD, torch.tensor([[0, 0, 1, 1], [6, 4, 7, 5], box, [9, 9, 9, 9]])]
    for call in (region_pyramid_pool, lambda m, r: region_pyramid_scores(m, r, torch.randn(1, 150))):
        with pytest.raises(
            UserError, match=r"regions\[1\]\[2\]: expected 0 <= x0 < x1 <= 7 and 0 <= y0"
        ) as caught:
            call(MAPS, regions)
        assert str(box) in str(caught.value)


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        ([GOOD], r"regions: expected one tensor for each of the 2 maps, got 1"),
        ([GOOD, GOOD, GOOD], r"regions: expected one tensor for each of the 2 maps, got 3"),
        ([GOOD, GOOD[0]], r"regions\[1\]: expected an integer tensor \[N, 4\], got shape \[4\]"),
        ([GOOD, GOOD[:, :3]], r"regions\[1\]: expected an integer tensor \[N, 4\], got shape \[1, 3\]"),
        ([GOOD.float(), GOOD], r"regions\[0\]: expected an integer tensor .*, got torch.float32"),
        ([GOOD, GOOD * float("nan")], r"regions\[1\]: expected an integer tensor"),
        ([GOOD, GOOD.bool()], r"regions\[1\]: expected an integer tensor"),
        ([GOOD, GOOD.to("meta")], r"regions\[1\]: expected a tensor on cpu, as the maps, or cpu, got meta"),
        ([GOOD, "all"], r"regions\[1\]: expected an integer tensor \[N, 4\], got 'all'"),
        ([GOOD, None], r"regions\[1\]: expected an integer tensor \[N, 4\], got None"),
        ([GOOD, [[0, 0, 1]]], r"regions\[1\]: expected an integer tensor \[N, 4\], got shape \[1, 3\]"),
        ([GOOD, [[0, 0, 1, 1], [2]]], r"regions\[1\]: .*got rows of different lengths"),
        ([GOOD, [[0, 0, 1, 10**30]]], r"regions\[1\]: .*dtype object"),
        ([GOOD, [[0, 0, 1, 2**63]]], r"regions\[1\]"),
        ([GOOD, np.array([[0, 0, 1, 2**64 - 1]], np.uint64)], r"regions\[1\]\[0\]"),
        ([GOOD, np.array(["a"])], r"regions\[1\]: .*got an array of shape \[1\] and dtype <U1"),
        ([GOOD, [[0.0, 0, 1, 1]]], r"regions\[1\]: .*For boxes in image pixels pass spatial_scale"),
        (
            GOOD,
            r"regions: expected a sequence of integer tensors \[N, 4\], one per map, got a tensor",
        ),
        (None, r"regions: expected a sequence of integer tensors .* got None"),
        (torch.ones(2, 5), r"regions: expected a sequence .* with a map index pass spatial_scale"),
        (7, r"regions: expected a sequence of integer tensors .* got 7"),
        ("all", r"regions: expected a sequence of integer tensors .* got 'all'"),
        ({}, r"regions: expected a sequence of integer tensors .* got an object of type dict"),
    ],
)
def test_regions_of_another_kind_are_refused(regions: Any, message: str) -> None:
    for call in (region_pyramid_pool, lambda m, r: region_pyramid_scores(m, r, torch.randn(1, 150))):
        with pytest.raises(UserError, match=message):
            call(MAPS, regions)


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (None, r"maps: expected a tensor \[B, C, H, W\].*got None"),
        ("maps", r"maps: .*got 'maps'"),
        (3, r"maps: .*got 3"),
        ([1, 2], r"maps\[0\]: expected a tensor \[C, H, W\], got 1"),
        ([torch.zeros(3, 5, 5), None], r"maps\[1\]: .*got None"),
        (np.zeros((1, 3, 5, 5), int), r"maps: expected float32, .*got torch.int64"),
        (np.zeros((1, 3, 5, 5), np.longdouble), r"maps: .*got an array of shape \[1, 3, 5, 5\]"),
        (np.zeros((1, 3, 5, 5), object), r"maps: .*dtype object"),
        (np.zeros((1, 3, 5, 5), complex), r"maps: .*dtype complex128"),
        (torch.zeros(1, 3, 5, 5, dtype=torch.complex64), r"maps: .*got torch.complex64"),
        (torch.zeros(1, 3, 5, 5).to_sparse(), r"maps: .*got a tensor of layout torch.sparse_coo"),
        (torch.zeros(()), r"maps: .*got shape \[\]"),
        ([torch.zeros(5, 5)], r"maps\[0\]: expected a tensor \[C, H, W\], .*got shape"),
        ([torch.zeros(())], r"maps\[0\]: .*got shape \[\]"),
        (
            [torch.zeros(3, 5, 5), torch.zeros(3, 5, 5, device="meta")],
            r"maps\[1\]: expected torch.float32 on cpu",
        ),
        (
            torch.zeros(3, 5, 5),
            r"maps: expected a tensor \[B, C, H, W\] with H and W at least 1, got shape \[3, 5, 5\]",
        ),
        (torch.zeros(1, 3, 0, 5), r"got shape \[1, 3, 0, 5\]"),
        (torch.zeros(1, 3, 5, 0), r"got shape \[1, 3, 5, 0\]"),
        (
            torch.zeros(1, 3, 5, 5, dtype=torch.int32),
            r"maps: expected float32, float16, bfloat16 or float64, got",
        ),
        ([], r"maps: expected at least one map, got an empty sequence"),
        (
            [torch.zeros(3, 5, 5), torch.zeros(4, 5, 5)],
            r"maps\[1\]: expected a tensor \[C, H, W\], C as in maps\[0\]",
        ),
        ([torch.zeros(3, 5, 5), torch.zeros(3, 0, 5)], r"maps\[1\]: .*got shape \[3, 0, 5\]"),
        ([torch.zeros(3, 5, 5), torch.zeros(3, 5, 5).double()], r"maps\[1\]: expected torch.float32 on cpu"),
    ],
)
def test_maps_of_another_kind_are_refused(maps: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        spatial_pyramid_pool(maps)


@pytest.mark.parametrize("mode", ["sum", "MAX", "", None, 3, np.array(["max"]), ["max"], torch.ones(2)])
def test_unknown_modes_are_refused(mode: Any) -> None:
    with pytest.raises(UserError, match='mode: expected "max", "mean" or "avg", got '):
        spatial_pyramid_pool(MAPS, mode=mode)


@pytest.mark.parametrize(
    "levels",
    [
        (),
        (3, 0),
        (3, -1),
        (2.0, 1),
        ("3",),
        (True,),
        None,
        "321",
        2.5,
        10**30,
        (10**30,),
        (1025,),
        {3: 1},
        (None,),
    ],
)
def test_bad_levels_are_refused(levels: Any) -> None:
    with pytest.raises(UserError, match="levels: expected a sequence of integers from 1 to 1024"):
        region_pyramid_pool(MAPS, [GOOD, GOOD], levels)


def test_too_many_bins_are_refused() -> None:
    with pytest.raises(UserError, match="levels: expected at most 1048576 bins, got 2097152"):
        spatial_pyramid_pool(MAPS, (1024, 1024))


def test_one_number_of_levels_is_explained() -> None:
    with pytest.raises(UserError, match=r"got 3. For one level of 3 x 3 bins write levels=\(3,\)"):
        spatial_pyramid_pool(MAPS, 3)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"got shape \[3, 5, 5\]. For one map pass maps\[None\]"):
        spatial_pyramid_pool(torch.zeros(3, 5, 5))


def test_levels_may_be_numpy_integers_and_avg_is_mean() -> None:
    expected = spatial_pyramid_pool(MAPS, (3, 1), "mean")
    assert torch.equal(spatial_pyramid_pool(MAPS, np.array([3, 1]), "avg"), expected)
    assert torch.equal(spatial_pyramid_pool(MAPS, (np.int64(3), 1), "avg"), expected)


MORE = torch.tensor([[1, 2, 3, 4], [0, 0, 1, 1]])


@pytest.mark.parametrize(
    "regions",
    [
        [GOOD.numpy(), MORE.numpy().astype(np.int16)],
        [GOOD.tolist(), MORE.tolist()],
        (GOOD, MORE.tolist()),
        iter([GOOD, MORE]),
        [GOOD.numpy(), MORE.numpy().astype(">i4")],
        [GOOD, MORE.numpy()[::-1][::-1]],
        [GOOD, list(MORE)],
        [GOOD, MORE.numpy().astype(np.uint64)],
    ],
)
def test_regions_in_other_containers(regions: Any) -> None:
    assert torch.equal(region_pyramid_pool(MAPS, regions), region_pyramid_pool(MAPS, [GOOD, MORE]))


def test_regions_of_one_map_need_no_list() -> None:
    expected = region_pyramid_pool(MAPS[:1], [MORE])
    for regions in (MORE, MORE.numpy(), MORE.tolist(), MORE[None], [MORE.tolist()]):
        assert torch.equal(region_pyramid_pool(MAPS[:1], regions), expected)
    assert region_pyramid_pool(MAPS[:1], [[]]).shape == (0, 150)
    assert region_pyramid_pool(MAPS[:0], []).shape == (0, 150)
    assert torch.equal(
        region_pyramid_pool(MAPS, torch.stack([MORE, MORE])), region_pyramid_pool(MAPS, [MORE] * 2)
    )


def test_maps_may_be_arrays() -> None:
    array = MAPS.numpy()
    read_only = array.copy()
    read_only.flags.writeable = False
    for maps in (
        array,
        read_only,
        array.astype(">f4"),
        array[::-1].copy()[::-1],
        array[..., ::-1].copy()[..., ::-1],
    ):
        assert torch.equal(spatial_pyramid_pool(maps), spatial_pyramid_pool(MAPS))
        assert torch.equal(spatial_pyramid_pool(list(maps)), spatial_pyramid_pool(MAPS))
        assert torch.equal(region_pyramid_pool(maps, [GOOD, MORE]), region_pyramid_pool(MAPS, [GOOD, MORE]))
    assert spatial_pyramid_pool(array.astype(np.float16)).dtype == torch.float16
    weight = torch.randn(2, 150)
    scores = region_pyramid_scores(array, [GOOD, MORE], weight.numpy(), np.ones(2, np.float32))
    assert torch.equal(scores, region_pyramid_scores(MAPS, [GOOD, MORE], weight, torch.ones(2)))


@pytest.mark.parametrize(
    ("weight", "bias", "message"),
    [
        (torch.zeros(2, 150, dtype=torch.int64), None, "weight: expected float32, .*got torch.int64 on cpu"),
        (torch.zeros(2, 150, device="meta"), None, "weight: .*got torch.float32 on meta"),
        (None, None, r"weight: expected a tensor \[K, 150\], got None"),
        ([[1.0] * 150], None, r"weight: expected a tensor \[K, 150\], got an object of type list"),
        (torch.zeros(150), None, r"weight: .*got shape \[150\]"),
        (torch.zeros(2, 150), torch.zeros(2, 1), r"bias: expected a tensor \[2\], got shape \[2, 1\]"),
        (torch.zeros(2, 150), torch.zeros(2).double(), r"bias: expected torch.float32 on cpu, as weight"),
        (torch.zeros(2, 150), 1.0, r"bias: expected a tensor \[2\], got 1.0"),
    ],
)
def test_heads_of_another_kind_are_refused(weight: Any, bias: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        region_pyramid_scores(MAPS, [GOOD, GOOD], weight, bias)


junk = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(),
        st.text(max_size=3),
        st.binary(max_size=3),
        st.just({}),
        st.just(torch.device("cpu")),
        st.builds(
            lambda shape, dtype: torch.zeros(shape, dtype=dtype),
            st.lists(st.integers(0, 3), max_size=4),
            st.sampled_from(
                [torch.float32, torch.int64, torch.bool, torch.complex64, torch.uint8, torch.uint64]
            ),
        ),
        st.builds(
            lambda shape, dtype: np.zeros(shape, dtype),
            st.lists(st.integers(0, 3), max_size=4),
            st.sampled_from(["f4", "f8", "i8", "u8", "?", "O", "U3", "M8[s]", ">i2", "g"]),
        ),
    ),
    lambda inner: st.lists(inner, max_size=4) | st.lists(inner, max_size=2).map(tuple),
    max_leaves=6,
)


@given(
    arguments=st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            ["maps", "regions", "levels", "mode", "spatial_scale", "weight", "bias"], junk
        ),
    )
)
@settings(deadline=None, max_examples=100)
def test_whatever_is_passed_only_user_errors_are_raised(arguments: dict[str, Any]) -> None:
    given = {"maps": MAPS, "regions": [GOOD, GOOD], "weight": torch.zeros(2, 150), "bias": None} | arguments
    head = {name: given.pop(name) for name in ("weight", "bias")}
    whole = {name: value for name, value in given.items() if name not in ("regions", "spatial_scale")}
    for call, rest in (
        (spatial_pyramid_pool, whole),
        (region_pyramid_pool, given),
        (region_pyramid_scores, given | head),
    ):
        try:
            assert isinstance(call(**rest), torch.Tensor)
        except UserError as error:
            assert "\n" not in str(error)  # noqa: PT017
