"""Print by how many MB the peak memory grows when ``sys.argv[1]`` is read for a small network; Linux only."""

import sys

from sppnet.benchmark.measure import grow
from sppnet.data import read_scaled
from sppnet.structures import ImageSize

print(grow(lambda: read_scaled(sys.argv[1], lambda _: ImageSize(300, 300))))
