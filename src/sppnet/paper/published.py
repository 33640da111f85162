"""Values of Tables 9 to 12 of the paper (He et al. 2015, sections 4.2 to 4.4)."""

from __future__ import annotations

TABLE9: dict[str, tuple[float | None, ...]] = {
    "pool5": (43.0, 44.9, 44.2, None),
    "fc6": (42.5, 44.8, 46.2, None),
    "ftfc6": (52.3, 53.7, 53.1, None),
    "ftfc7": (54.5, 55.2, 54.2, 55.1),
    "ftfc7 bb": (58.0, 59.2, 58.5, 59.2),
}
"""VOC 2007 mAP: SPP at 1 scale, at 5 scales, R-CNN with AlexNet, R-CNN with ZF-5."""
SECONDS: dict[str, tuple[float, ...]] = {
    "conv": (0.053, 0.293, 8.96, 14.37),
    "fc": (0.089, 0.089, 0.07, 0.089),
    "total": (0.142, 0.382, 9.03, 14.46),
}
"""Seconds per image: SPP at 1 scale, at 5 scales, R-CNN with AlexNet, R-CNN with ZF-5."""
SPEEDUPS = {"table9": (64.0, 24.0), "table10": (102.0, 38.0)}
"""Seconds of R-CNN relative to SPP at 1 and at 5 scales: AlexNet (Table 9) and ZF-5 (Table 10)."""
VOC_CLASSES = [
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
]
TABLE11 = {
    "SPP ftfc7": (
        "65.5 65.9 51.7 38.4 32.7 62.6 68.6 69.7 33.1 66.6 53.1 58.2 63.6 68.8 50.4 27.4 53.7 48.2 61.7 64.7"
    ),
    "SPP ftfc7 bb": (
        "68.6 69.7 57.1 41.2 40.5 66.3 71.3 72.5 34.4 67.3 61.7 63.1 71.0 69.8 57.6 29.7 59.0 50.2 65.2 68.0"
    ),
}
TABLE12 = {
    "SPP-net (1)": TABLE11["SPP ftfc7 bb"],
    "SPP-net (2)": (
        "65.7 71.4 57.4 42.4 39.9 67.0 71.4 70.6 32.4 66.7 61.7 64.8 71.7 70.4 56.5 30.8 59.9 53.2 63.9 64.6"
    ),
    "combination": (
        "68.5 71.7 58.7 41.9 42.5 67.7 72.1 73.8 34.7 67.0 63.4 66.0 72.5 71.3 58.9 32.8 60.9 56.1 67.9 68.8"
    ),
}
