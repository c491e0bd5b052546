"""How quickly surface distances are measured, against MONAI's functions in the same run, and whether both agree.

python -m benchmarks.surface_distances
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice
from rich.console import Console
from rich.table import Table

from napari_medt.measure import Surfaces

SHAPE = (200, 512, 512)
SPACING = (2.0, 0.8, 0.8)
TOLERANCE = 2.0


def ellipsoid(centre: tuple[float, ...], radii_mm: tuple[float, ...]) -> np.ndarray:
    """A structure in a scan of `SHAPE`."""
    grid = np.ogrid[tuple(slice(0, size) for size in SHAPE)]
    parts = zip(grid, centre, radii_mm, SPACING, strict=True)
    return sum(((axis - middle) * step / radius) ** 2 for axis, middle, radius, step in parts) <= 1


PAIRS = {
    "gland, 3 ml": (((100, 200, 200), (9, 9, 9)), ((100.4, 201, 202), (8, 9, 10))),
    "kidney, 200 ml": (((100, 300, 180), (55, 28, 30)), ((101, 302, 181), (53, 30, 29))),
    "liver, 2 l": (((100, 240, 200), (75, 70, 90)), ((102, 243, 202), (74, 72, 87))),
    "two far apart": (((40, 100, 100), (30, 30, 30)), ((150, 400, 400), (30, 30, 30))),
}


def timed(run: Callable[[], Sequence[float]]) -> tuple[float, list[float]]:
    """Seconds, and what was found."""
    start = time.perf_counter()
    found = run()
    return time.perf_counter() - start, [float(value) for value in found]


def main() -> None:
    """Print the table."""
    warnings.simplefilter("ignore")
    table = Table("pair", "measure", "MONAI, s", "ours, s", "times faster", "difference", title=f"A scan of {SHAPE}")
    for name, (first, second) in PAIRS.items():
        masks = [ellipsoid(*one) for one in (first, second)]
        one_hot = [torch.from_numpy(mask)[None, None] for mask in masks]
        options = {"include_background": True, "spacing": SPACING}
        measures = {
            "HD95": (
                lambda x=one_hot, o=options: (compute_hausdorff_distance(*x, percentile=95, **o),),
                lambda m=masks: (Surfaces(*m, spacing=SPACING).hausdorff(95),),
            ),
            "HD95, ASSD and surface Dice": (
                lambda x=one_hot, o=options: (
                    compute_hausdorff_distance(*x, percentile=95, **o),
                    compute_average_surface_distance(*x, symmetric=True, **o),
                    compute_surface_dice(*x, class_thresholds=[TOLERANCE], use_subvoxels=True, **o),
                ),
                lambda m=masks: (
                    (pair := Surfaces(*m, spacing=SPACING)).hausdorff(95),
                    pair.average(),
                    pair.dice(TOLERANCE),
                ),
            ),
        }
        for title, (theirs, ours) in measures.items():
            slow, expected = timed(theirs)
            quick, found = timed(ours)
            apart = max(abs(one - two) for one, two in zip(expected, found, strict=True))
            table.add_row(name, title, f"{slow:.2f}", f"{quick:.2f}", f"{slow / quick:.1f}", f"{apart:.1e}")
    Console().print(table)


if __name__ == "__main__":
    main()
