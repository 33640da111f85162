"""Proposals: dense windows, selective search, EdgeBoxes or boxes from a file."""

from sppnet.proposals.dense import dense_windows, shapes_from_boxes
from sppnet.proposals.edge_boxes import edge_boxes
from sppnet.proposals.from_file import proposals_for, read_proposals
from sppnet.proposals.selective_search import selective_search
from sppnet.proposals.source import Cached, ProposalSource

__all__ = [
    "Cached",
    "ProposalSource",
    "dense_windows",
    "edge_boxes",
    "proposals_for",
    "read_proposals",
    "selective_search",
    "shapes_from_boxes",
]
