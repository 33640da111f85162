import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sppnet.detect import SvmOptions
from sppnet.detect.sample_table import (
    Sample,
    SampleTable,
    first_samples_within,
    hard_samples_within,
    make_room,
)
from sppnet.detect.targets import draw_evenly

GROUPS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=60)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def spread(counts, taken):
    """Whether ``taken`` of ``counts`` is even: who got less than another got everything."""
    return all(
        mine >= other - 1 or mine == counts[k] for k, mine in taken.items() for other in taken.values()
    )


@given(GROUPS, st.integers(0, 70), st.integers(0, 99))
@settings(deadline=None, max_examples=100)
def test_draws_are_even_over_groups_and_over_their_images(pairs, count, seed):
    groups, images = torch.tensor(pairs).T
    chosen = draw_evenly(groups, images, torch.zeros(len(pairs)), count, generator(seed)).tolist()
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(count, len(pairs))
    taken = [pairs[i] for i in chosen]
    names = {group for group, _ in pairs}
    assert spread(
        {g: sum(p[0] == g for p in pairs) for g in names}, {g: sum(p[0] == g for p in taken) for g in names}
    )
    for group in names:
        mine = {pair for pair in pairs if pair[0] == group}
        assert spread({p: pairs.count(p) for p in mine}, {p: taken.count(p) for p in mine})


def test_low_priority_numbers_come_first():
    groups = images = torch.zeros(9, dtype=torch.int64)
    priority = torch.tensor([3.0, 1, 2, 0, 5, 4, 8, 7, 6])
    assert draw_evenly(groups, images, priority, 3, generator(0)).tolist() == [1, 2, 3]


def samples_of(counts, classes):
    """One image per entry, which has so many windows of each class, the background last."""
    found = []
    for of_class in counts:
        groups = torch.arange(classes + 1).repeat_interleave(torch.tensor(of_class))
        found.append(Sample(torch.arange(len(groups)) * 2, groups, torch.zeros(len(groups))))
    return found


def test_a_first_sample_that_fits_is_taken_whole_and_draws_nothing():
    draw = generator(0)
    before = draw.get_state()
    chosen = first_samples_within(samples_of([(3, 0, 5), (0, 2, 4)], 2), 2, 14, SvmOptions().hard_share, draw)
    assert [part.tolist() for part in chosen] == [list(range(0, 16, 2)), list(range(0, 12, 2))]
    assert torch.equal(draw.get_state(), before)


def test_a_first_sample_without_room_keeps_rare_classes_and_room_for_hard_negatives():
    samples = samples_of([(40, 0, 40)] * 10 + [(0, 6, 40)], 2)
    chosen = first_samples_within(samples, 2, 100, SvmOptions().hard_share, generator(0))
    groups = torch.cat([s.groups[torch.isin(s.windows, c)] for s, c in zip(samples, chosen, strict=True)])
    counts = torch.bincount(groups, minlength=3).tolist()
    assert sum(counts) == 100 - int(SvmOptions().hard_share * 100)
    assert counts[1] == 6
    assert counts[2] == 37
    assert all(len(part) for part in chosen)


def test_hard_negatives_without_room_come_from_every_image():
    samples = samples_of([(20, 0, 0)] * 8 + [(0, 20, 0)] * 2, 2)
    chosen = [len(part) for part in hard_samples_within(samples, 32, generator(0))]
    assert chosen == [2] * 8 + [8] * 2


def full_table(scores):
    """A table without a free row: ten positives of class 0 and negatives with the given scores."""
    rows = torch.cat([torch.full((10,), 5.0), torch.tensor(scores)])[:, None]
    targets = torch.tensor([[1]] * 10 + [[-1]] * len(scores), dtype=torch.int8)
    table = SampleTable(2, len(rows))
    half = len(rows) // 2
    for image, part in enumerate((slice(0, half), slice(half, len(rows)))):
        table.add(image, rows[part], targets[part], torch.arange(len(rows))[part])
    return table


@given(st.lists(st.floats(-3, 0.5, width=32), min_size=1, max_size=40), st.integers(0, 60), st.integers(0, 9))
@settings(deadline=None, max_examples=100)
def test_sure_negatives_make_room_first(scores, wanted, seed):
    table = full_table(scores)
    make_room(table, table.rows, wanted, SvmOptions(), generator(seed))
    easy = sorted(score for score in scores if score <= -1)
    negatives = sorted(value for value in table.rows[:, 0].tolist() if value < 5)
    gone = min(wanted, len(easy))
    assert negatives == sorted(torch.tensor(sorted(scores)[gone:]).tolist())
    hard = len(scores) - len(easy)
    reserved = max(0, min(wanted, int(SvmOptions().hard_share * table.limit) - hard) - gone)
    assert table.free == gone + min(10, reserved)
    # What was removed may be found again; what stays may not be added twice.
    assert sum(map(len, table.used)) == len(table)


def test_rows_and_their_targets_stay_together():
    table = full_table([-2.0, -0.5, -3.0, 0.1])
    make_room(table, table.rows, 2, SvmOptions(), generator(0))
    assert table.free == 2
    assert bool(((table.rows[:, 0] == 5) == (table.targets[:, 0] == 1)).all())
    assert sorted(table.rows[table.targets[:, 0] < 0, 0].tolist()) == [-0.5, 0.10000000149011612]
    assert table.images.tolist() == sorted(table.images.tolist())
