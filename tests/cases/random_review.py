"""A review without end, the same for the same seed: for a process that is killed and for the test that knows what it did."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from napari_medt.cases import Entry, Journal
from napari_medt.core import Volume

IMAGE = Volume.from_array(np.arange(2400, dtype=np.uint16).reshape(40, 60))


def random_review(seed: int) -> Iterator[tuple[tuple[Entry, ...], np.ndarray, Journal]]:
    """Strokes, whole new masks and jumps: what each is, the mask after it, and the history."""
    labels, journal, rng = np.zeros((40, 60), np.uint8), Journal(), np.random.default_rng(seed)
    while True:
        kind = rng.integers(0, 8)
        if kind == 0 and len(journal.timeline) > 3:
            steps = journal.jump(len(journal.timeline) - int(rng.integers(0, 3)), labels)
        else:
            before = labels.copy()
            y, x = rng.integers(0, 36), rng.integers(0, 56)
            box = np.s_[:, :] if kind == 1 else np.s_[y : y + 4, x : x + 4]
            labels[box] = rng.integers(0, 9, labels[box].shape)
            entry = journal.record("change", before, labels)
            steps = () if entry is None else (entry,)
        yield steps, labels, journal
