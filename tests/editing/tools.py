"""A mask with three structures in it, and every tool in a form that does something to it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from napari_medt import editing
from napari_medt.core import BadEdit, NothingToChange
from napari_medt.editing import Edit

SPACING = {2: (1.5, 0.8), 3: (2.5, 1.0, 0.8)}

Tool = Callable[[np.ndarray, np.ndarray], Edit]


def ball(shape, centre_mm, radius_mm, spacing):
    """Say which voxels have their centre in a ball."""
    grid = np.ogrid[tuple(slice(0, size) for size in shape)]
    parts = zip(grid, centre_mm, spacing, strict=True)
    return sum((axis * step - middle) ** 2 for axis, middle, step in parts) <= radius_mm**2


def after(edit: Edit, labels: np.ndarray) -> np.ndarray:
    """Return a mask as a change makes it."""
    changed = labels.copy()
    edit.apply(changed)
    return changed


def done(tool: Callable[..., Edit], labels: np.ndarray, *args: object, **options: object) -> np.ndarray:
    """Return what a tool makes of a mask; the same where there is nothing to change."""
    try:
        return after(tool(labels, *args, **options), labels)
    except NothingToChange:
        return labels.copy()


def phantom(ndim: int = 3, dtype: object = np.uint8) -> np.ndarray:
    """Two balls that touch and share a label, one with a hole and a structure in it; islands; slices left empty."""
    spacing = SPACING[ndim]
    shape = (14, 34, 40)[-ndim:]
    middle = [size * step / 2 for size, step in zip(shape, spacing, strict=True)]
    labels = np.zeros(shape, dtype)
    for shift in (-5.5, 5.5):
        labels[ball(shape, (*middle[:-1], middle[-1] + shift), 8, spacing)] = 1
    labels[ball(shape, (*middle[:-1], middle[-1] + 5.5), 3, spacing)] = 0
    labels[ball(shape, (*middle[:-1], middle[-1] - 5.5), 3, spacing)] = 2
    labels[(0,) * ndim] = 1
    labels[(..., *[slice(-3, None)] * 2)] = 3
    if ndim == 3:
        labels[6:9, -3:, -3:] = 0
    return labels


def picture(labels: np.ndarray) -> np.ndarray:
    """Return grey values by structure, with a gradient over them."""
    return labels.astype(float) * 100 + np.arange(labels.shape[-1])


def tools(ndim: int) -> dict[str, Tool]:
    """Every tool, as a function of a mask and an image."""
    mm = {"spacing": SPACING[ndim]}
    first, second = np.argwhere(phantom(ndim) == 1)[[0, -1]]
    middle = [size // 2 for size in (14, 34, 40)[-ndim:]]
    found: dict[str, Tool] = {
        "keep_largest": lambda a, _: editing.keep_largest(a, 1),
        "remove_islands": lambda a, _: editing.remove_islands(a, 1, smaller_than=0.02 if ndim == 3 else 2, **mm),
        "change_island": lambda a, _: editing.change_island(a, first, to=4),
        "keep_island": lambda a, _: editing.keep_island(a, second),
        "fill_holes": lambda a, _: editing.fill_holes(a, 1),
        "grow": lambda a, _: editing.grow(a, 1, margin_mm=3, **mm),
        "shrink": lambda a, _: editing.shrink(a, 1, margin_mm=1.6, **mm),
        "hollow": lambda a, _: editing.hollow(a, 1, thickness_mm=3, shell="middle", **mm),
        "smooth": lambda a, _: editing.smooth(a, 1, sigma_mm=1.5, **mm),
        "smooth_together": lambda a, _: editing.smooth_together(a, [1, 2], sigma_mm=1.5, **mm),
        "median": lambda a, _: editing.median(a, 1, width_mm=4, **mm),
        "relabel": lambda a, _: editing.relabel(a, 1, to=7),
        "merge": lambda a, _: editing.merge(a, [1, 2], to=3),
        "combine": lambda a, image: editing.combine(a, 1, image > 150, how="add"),
        "threshold": lambda a, image: editing.threshold(a, 5, image, within=1, low=115),
        "trace_level": lambda a, image: editing.trace_level(a, 5, image, middle),
        "brush": lambda a, image: editing.brush(
            a, [first, middle], 3, radius_mm=4, image=image, low=100, high=300, **mm
        ),
        "split_by_seeds": lambda a, _: editing.split_by_seeds(a, 1, [first, second], to=[1, 6], **mm),
        "split_along_line": lambda a, _: editing.split_along_line(
            a, 1, [(0, middle[-1]), (2 * middle[-2], middle[-1])], to=6, **mm
        ),
    }
    if ndim == 3:
        found |= {
            "fill_between": lambda a, _: editing.fill_between(a, [3], axis=0, **mm),
            "copy_slice": lambda a, _: editing.copy_slice(a, [1, 2], axis=0, index=6, to=2),
        }
    return found


EVERY = [(ndim, name) for ndim in (2, 3) for name in tools(ndim)]
"""Number of axes and name, for parametrised tests."""


def run(ndim: int, name: str, labels: np.ndarray, image: np.ndarray | None = None) -> Edit | None:
    """Return a tool's change, `None` where it says that it makes no sense on this mask."""
    try:
        return tools(ndim)[name](labels, picture(labels) if image is None else image)
    except BadEdit:
        return None
