"""A small image, and a way to change a mask as a user does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from napari_medt.cases import Entry, Journal
from napari_medt.core import Geometry, Volume

Stroke = Callable[..., Entry]


@pytest.fixture
def image() -> Volume:
    values = np.random.default_rng(5).integers(0, 255, (40, 50), dtype=np.uint8)
    geometry = Geometry.from_spacing((0.5, 0.25), units="um")
    return Volume.from_array(values, geometry=geometry, source="/home/someone/Jane Doe 1970-01-01/slide 7.tif")


@pytest.fixture
def stroke() -> Stroke:
    """Paint one square, differing with `number`, into the mask, and return the entry."""

    def paint(labels: np.ndarray, journal: Journal, number: int) -> Entry:
        before = labels.copy()
        start = tuple(number * step % (size - 4) for step, size in zip((7, 11, 13), labels.shape, strict=False))
        labels[tuple(slice(a, a + 4) for a in start)] = number % 5 + 1
        entry = journal.record(f"brush {number}", before, labels)
        if entry is None:  # the same square again: one pixel of a value of its own
            labels[start] = 6 + number % 200
            entry = journal.record(f"brush {number}", before, labels)
        assert entry is not None
        return entry

    return paint
