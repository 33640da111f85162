"""Draw and save a result of the runtime; print the size, and whether torch was imported."""

import sys
import tempfile
from pathlib import Path

import numpy as np

from sppnet.runtime import DetectionResult

box, score = np.array([[10, 20, 200, 300]], np.float32), np.array([0.9], np.float32)
image = np.zeros((360, 400, 3), np.uint8)
found = DetectionResult(box, score, np.array([0]), ("cat",), 360, 400, image)
with tempfile.TemporaryDirectory() as folder:
    found.save(Path(folder, "out.jpg"))
print(found.plot().size, "torch" in sys.modules)
