"""Print how many page faults it takes to allocate and free 40 MB five times, after `sppnet VERB`."""

import resource
import sys

import numpy as np

from sppnet.cli import main

main(sys.argv[1:])
for _ in range(3):
    np.ones(5_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    np.ones(5_000_000)
print("faults", resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
