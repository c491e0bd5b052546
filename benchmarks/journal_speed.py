"""What it costs to remember a change of a mask, against keeping a copy of the whole mask for every step.

python -m benchmarks.journal_speed
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from napari_medt.cases import CaseFolder, Entry, Journal
from napari_medt.core import Geometry, Volume

SHAPE = (200, 512, 512)
RADIUS = 12
REPEATS = 30
Row = tuple[str, float, float]


def body(rng: np.random.Generator) -> np.ndarray:
    """A mask of some round structures, as a model leaves one."""
    labels = np.zeros(SHAPE, np.uint8)
    z, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    for value in range(1, 7):
        centre, radius = [int(rng.integers(n // 4, 3 * n // 4)) for n in SHAPE], int(rng.integers(30, 80))
        labels[((z - centre[0]) * 2) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 < radius**2] = value
    return labels


def stroke(rng: np.random.Generator, *, ball: bool) -> tuple[tuple[slice, ...], np.ndarray]:
    """Where a drawn-out stroke of a round brush lies, and which voxels of it are painted."""
    depth = RADIUS if ball else 0
    start = [int(rng.integers(RADIUS, n - 5 * RADIUS)) for n in SHAPE]
    box = (slice(start[0], start[0] + 2 * depth + 1), *(slice(a, a + 4 * RADIUS) for a in start[1:]))
    z, y, x = np.ogrid[tuple(slice(0, part.stop - part.start) for part in box)]
    along = np.clip((y + x - 2 * RADIUS) / 2, 0, 2 * RADIUS)
    painted = (z - depth) ** 2 + (y - RADIUS - along) ** 2 + (x - RADIUS - along) ** 2 < RADIUS**2
    return box, painted


def median_ms(run: Callable[[], object]) -> float:
    """Median time over repeats, in ms."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def measure(labels: np.ndarray, case: CaseFolder, rng: np.random.Generator, *, ball: bool) -> list[Row]:
    """Strokes and their undos, in memory and onto the disk: what, ms, bytes."""
    journal, entries, steps = Journal(), [], []

    def paint() -> None:
        box, painted = stroke(rng, ball=ball)
        before = labels[box].copy()
        labels[box][painted] = 5
        entries.append(journal.record_box("brush", box, before, labels[box]))

    def onto_disk(changes: list[Entry]) -> tuple[float, float]:
        waiting, path = iter(changes), case.path / "journal.bin"
        size = path.stat().st_size
        ms = median_ms(lambda: case.record(next(waiting)))
        return ms, (path.stat().st_size - size) / REPEATS

    what = "a stroke of a ball" if ball else "a stroke on one slice"
    painting = median_ms(paint)
    nbytes = statistics.median(entry.nbytes for entry in entries)
    kept = onto_disk(entries)
    undoing = median_ms(lambda: steps.append(journal.undo(labels)))
    return [
        (f"{what}: remember", painting, nbytes),
        (f"{what}: onto the disk", *kept),
        (f"{what}: undo", undoing, nbytes),
        (f"{what}: undo onto the disk", *onto_disk(steps)),
    ]


def measure_run(labels: np.ndarray) -> list[Row]:
    """A whole new mask."""
    journal, blank = Journal(), np.zeros_like(labels)
    start = time.perf_counter()
    entry = journal.record("run", blank, labels, by="model")
    middle = time.perf_counter()
    journal.undo(labels)
    end = time.perf_counter()
    return [
        ("a model's run: remember", 1000 * (middle - start), entry.nbytes),
        ("a model's run: undo", 1000 * (end - middle), entry.nbytes),
    ]


def main() -> None:
    """Print the table."""
    rng = np.random.default_rng(0)
    labels = body(rng)
    copy_ms = median_ms(labels.copy)
    size = " x ".join(map(str, SHAPE))
    title = f"One step on a mask of {size}; a copy of it takes {copy_ms:.0f} ms and {labels.nbytes / 1e6:.0f} MB"
    table = Table("what", "ms", "kB", "times less time", "times less memory", title=title)
    with tempfile.TemporaryDirectory() as folder:
        image = Volume(np.zeros((1, *SHAPE), np.uint8), Geometry.from_spacing((2.0, 1.0, 1.0), units="mm"))
        with CaseFolder.open(image, root=Path(folder), snapshot_every=10**6) as case:
            case.save(labels)
            rows = [row for ball in (False, True) for row in measure(labels, case, rng, ball=ball)]
    for what, ms, nbytes in (*rows, *measure_run(labels)):
        ratios = f"{copy_ms / ms:,.1f}", f"{labels.nbytes / nbytes:,.0f}"
        table.add_row(what, f"{ms:.2f}", f"{nbytes / 1000:.1f}", *ratios)
    Console().print(table)


if __name__ == "__main__":
    main()
