"""How quickly the tools change a volume, against the plain forms on the whole volume in the same run, and whether both agree.

The plain forms are those found in tutorials: scipy and scikit-image on the mask of the whole volume. Where there is none of
one line, only our time is given.

python -m benchmarks.editing_speed
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import ndimage
from skimage.segmentation import watershed

from napari_medt import editing
from napari_medt.editing import Edit

SHAPE = (128, 256, 256)
SPACING = (2.5, 0.8, 0.8)
GOAL_MS = 200
T = TypeVar("T")
CONNECTED = np.ones((3, 3, 3))


def ellipsoid(centre: tuple[int, ...], radii_mm: tuple[float, ...]) -> np.ndarray:
    """A structure in a scan of `SHAPE`."""
    grid = np.ogrid[tuple(slice(0, size) for size in SHAPE)]
    parts = zip(grid, centre, radii_mm, SPACING, strict=True)
    return sum(((axis - middle) * step / radius) ** 2 for axis, middle, radius, step in parts) <= 1


def scan() -> tuple[np.ndarray, np.ndarray]:
    """A kidney of 150 ml with a hole, islands and a vessel; an adrenal gland; and grey values."""
    rng = np.random.default_rng(0)
    labels = np.zeros(SHAPE, np.uint8)
    labels[ellipsoid((64, 128, 100), (55, 28, 24))] = 1
    labels[ellipsoid((64, 128, 100), (8, 6, 6))] = 0
    labels[ellipsoid((64, 128, 140), (12, 12, 12))] = 2
    labels[ellipsoid((50, 100, 80), (3, 3, 3)) & (labels == 1)] = 0
    for z, y, x in rng.integers((45, 100, 70), (85, 160, 130), (30, 3)):
        labels[z, y, x] = 1
    labels[[20, 24, 28], 180:200, 40:60] = 3
    image = labels * 50.0 + rng.normal(0, 10, SHAPE)
    return labels, image.astype(np.float32)


def near(mask: np.ndarray, margin: float) -> np.ndarray:
    """What lies within a margin of a mask, itself included."""
    return ndimage.distance_transform_edt(~mask, sampling=SPACING) <= margin


def biggest(mask: np.ndarray, smallest: int | None = None) -> np.ndarray:
    """The largest island, or all from a size on."""
    numbered, _ = ndimage.label(mask, CONNECTED)
    sizes = np.bincount(numbered.ravel())
    sizes[0] = 0
    return np.isin(numbered, np.flatnonzero(sizes >= (smallest or sizes.max())))


def together(labels: np.ndarray) -> np.ndarray:
    """Structures 1 and 2 smoothed jointly."""
    sigma = [2 / step for step in SPACING]
    weights = [ndimage.gaussian_filter((labels == value).astype(np.float32), sigma, mode="nearest") for value in (1, 2)]
    best = np.argmax([1 - sum(weights), *weights], axis=0).astype(np.uint8)
    return np.where(labels == 3, 3, best)


def seeds_plainly(labels: np.ndarray, seeds: list[tuple[int, ...]]) -> np.ndarray:
    """A watershed on the whole volume."""
    mask, markers = labels == 1, np.zeros(SHAPE, np.int32)
    for number, seed in enumerate(seeds, start=1):
        markers[seed] = number
    parts = watershed(-ndimage.distance_transform_edt(mask, sampling=SPACING), markers, mask=mask)
    return np.where(parts == 2, 4, labels)


def set_to(labels: np.ndarray, where: np.ndarray, value: int) -> np.ndarray:
    """A copy with one label more."""
    return np.where(where, np.uint8(value), labels)


def jobs(
    labels: np.ndarray, image: np.ndarray
) -> dict[str, tuple[Callable[[], Edit], Callable[[], np.ndarray] | None]]:
    """Our form and the plain one of each tool."""
    one, mm = labels == 1, {"spacing": SPACING}
    seeds = [(50, 128, 100), (78, 128, 100)]
    kernel = [1, 5, 5]
    smooth_slice = ndimage.gaussian_filter(image[64], 2)
    ball = [(64, 128, 128)]
    e = editing
    return {
        "keep largest": (lambda: e.keep_largest(labels, 1), lambda: set_to(labels, one & ~biggest(one), 0)),
        "remove islands under 0.1 ml": (
            lambda: e.remove_islands(labels, 1, smaller_than=0.1, **mm),
            lambda: set_to(labels, one & ~biggest(one, 63), 0),
        ),
        "clicked island": (lambda: e.change_island(labels, (64, 150, 100), to=0), None),
        "fill holes": (
            lambda: e.fill_holes(labels, 1),
            lambda: set_to(labels, ndimage.binary_fill_holes(one) & (labels == 0), 1),
        ),
        "fill holes, each slice": (
            lambda: e.fill_holes(labels, 1, axis=0),
            lambda: set_to(labels, np.stack([ndimage.binary_fill_holes(s) for s in one]) & (labels == 0), 1),
        ),
        "grow 3 mm": (lambda: e.grow(labels, 1, margin_mm=3, **mm), lambda: set_to(labels, near(one, 3), 1)),
        "shrink 3 mm": (lambda: e.shrink(labels, 1, margin_mm=3, **mm), lambda: set_to(labels, one & near(~one, 3), 0)),
        "hollow 3 mm": (
            lambda: e.hollow(labels, 1, thickness_mm=3, **mm),
            lambda: set_to(labels, one & ~near(~one, 3), 0),
        ),
        "smooth 2 mm": (
            lambda: e.smooth(labels, 2, sigma_mm=2, **mm),
            lambda: set_to(
                set_to(labels, labels == 2, 0),
                ndimage.gaussian_filter((labels == 2).astype(np.float32), [2 / s for s in SPACING], mode="nearest")
                > 0.5,
                2,
            ),
        ),
        "smooth two together": (lambda: e.smooth_together(labels, [1, 2], sigma_mm=2, **mm), lambda: together(labels)),
        "median 4 mm": (
            lambda: e.median(labels, 1, width_mm=4, **mm),
            lambda: set_to(set_to(labels, one, 0), ndimage.median_filter(one, kernel, mode="nearest"), 1),
        ),
        "split by seeds": (
            lambda: e.split_by_seeds(labels, 1, seeds, to=[1, 4], **mm),
            lambda: seeds_plainly(labels, seeds),
        ),
        "split along a line": (
            lambda: e.split_along_line(labels, 1, [(120, 50), (125, 200)], to=4, **mm),
            None,
        ),
        "relabel": (lambda: e.relabel(labels, 1, to=9), lambda: set_to(labels, one, 9)),
        "merge": (lambda: e.merge(labels, [1, 2], to=2), lambda: set_to(labels, one, 2)),
        "add mask": (
            lambda: e.combine(labels, 2, labels == 3, how="add"),
            lambda: set_to(labels, labels == 3, 2),
        ),
        "fill between slices": (lambda: e.fill_between(labels, [3], axis=0, **mm), None),
        "copy slice": (lambda: e.copy_slice(labels, [1], axis=0, index=60, to=61), None),
        "threshold inside": (
            lambda: e.threshold(labels, 4, image, within=1, low=60),
            lambda: set_to(labels, one & (image >= 60), 4),
        ),
        "ball brush of 10 mm": (
            lambda: e.brush(labels, ball, 3, radius_mm=10, **mm),
            lambda: set_to(labels, ellipsoid(ball[0], (10.0001,) * 3), 3),
        ),
        "level tracing": (
            lambda: e.trace_level(labels[64], 4, smooth_slice, (128, 126)).on_slice(0, 64),
            None,
        ),
    }


def best_ms(run: Callable[[], T], times: int) -> tuple[float, T]:
    """Shortest processor time, in ms, and what came out; all of this runs on one core, whatever else the computer does."""
    found = []
    for _ in range(times):
        start = time.process_time()
        result = run()
        found.append(time.process_time() - start)
    return 1000 * min(found), result


def changed(edit: Edit, labels: np.ndarray) -> np.ndarray:
    """The mask after a change."""
    made = labels.copy()
    edit.apply(made)
    return made


def main() -> None:
    """Print the table."""
    labels, image = scan()
    table = Table(
        "tool", "ours, ms", "plain, ms", "times faster", "equal", title=f"A mask of {SHAPE}, goal {GOAL_MS} ms"
    )
    for name, (ours, plain) in jobs(labels, image).items():
        quick, edit = best_ms(ours, 5)
        row = [f"{quick:.0f}" + (" (!)" if quick > GOAL_MS else "")]
        if plain is not None:
            slow, expected = best_ms(plain, 1)
            equal = np.array_equal(changed(edit, labels), expected)
            row += [f"{slow:.0f}", f"{slow / quick:.1f}", "yes" if equal else "no"]
        table.add_row(name, *row)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
