import torch

from sppnet.detect import DetectorOptions
from sppnet.detect.svm_rounds import fit_in_rounds
from sppnet.structures import Boxes, GroundTruth, ImageSize


class Turns:
    """One image: an object, and proposals of which two are hard negatives, at an even and an odd index."""

    length = 4
    hard = (8, 15)

    def __init__(self):
        corner = torch.arange(40)[:, None] * 20.0
        small = torch.cat([corner, corner * 0 + 60, corner + 15, corner * 0 + 80], 1)
        boxes = torch.cat([torch.tensor([[0.0, 0, 20, 20]]), small])
        self.windows = [Boxes(boxes, ImageSize(100, 900))]
        self.table = torch.tensor([0.0, 1, 0, 0]).repeat(41, 1)
        self.table[0] = torch.tensor([1.0, 0, 0, 0])
        self.table[self.hard[0]] = torch.tensor([1.0, 0, 1, 0])
        self.table[self.hard[1]] = torch.tensor([1.0, 0, 0, 1])
        self.taken, self.scored = [], []

    def rows(self, i, which):
        self.taken.append(set(which.tolist()))
        return self.table[which]

    def scores(self, i, model, which):
        self.scored.append(which.tolist())
        return model.scores(self.table[which])


def fitted(step):
    source = Turns()
    truth = GroundTruth.make(source.windows[0][:1], torch.tensor([0]), ("a",))
    options = DetectorOptions(mining_step=step, random_negatives=1, positives="objects", enough_news=0.0)
    draw = torch.Generator().manual_seed(0)
    fit_in_rounds(source, [truth], options.svm, options.target, draw, lambda _: None, quiet=True)
    return source


def test_rounds_of_mining_take_turns():
    source = fitted(2)
    assert source.scored == [list(range(0, 41, 2)), list(range(1, 41, 2))]
    assert 8 in source.taken[1]
    assert 15 not in source.taken[1]
    assert 15 in source.taken[2]


def test_a_step_of_1_scores_all_proposals_in_every_round():
    source = fitted(1)
    assert source.scored[0] == list(range(41))
    assert {8, 15} <= source.taken[1]
