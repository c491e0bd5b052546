"""How quickly a click is answered, against building the whole attention of the block anew for every click.

python -m benchmarks.pick_speed
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from napari_medt.attention import AttentionExplorer
from napari_medt.nets.capture import capture
from napari_medt.zoo import Model, load_model

SIZE = 256
CLICKS = 20


def median_ms(run: Callable[[tuple[int, int]], object], points: list[tuple[int, int]]) -> float:
    """Median time of a question, in ms."""
    times = []
    for point in points:
        start = time.perf_counter()
        run(point)
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def plainly(model: Model, explorer: AttentionExplorer, source: str) -> Callable[[tuple[int, int]], object]:
    """A pass through the network and the block's whole attention, as a forward hook would keep it."""

    def run(point: tuple[int, int]) -> object:
        batch = torch.from_numpy(explorer.window_input(0))[None]
        with torch.inference_mode(), capture(model.net, [f"{source}.height", f"{source}.width"]) as captured:
            model.net(batch)
            return [states[0].full() for states in captured.values()]

    return run


def main() -> None:
    """Print the table."""
    rng = np.random.default_rng(0)
    model = load_model("medt-nuclei", device="cpu")
    explorer = AttentionExplorer(model, rng.random((SIZE, SIZE)))
    explorer.warm()
    points = [(int(y), int(x)) for y, x in rng.integers(0, SIZE, (CLICKS, 2))]
    table = Table("block", "plain, ms", "ours, ms", "times faster", title=f"A click on {SIZE} x {SIZE} pixels")
    for source in explorer.sources():
        ours = median_ms(lambda point, source=source: explorer.pick(point, source=source), points)
        slow = median_ms(plainly(model, explorer, source), points[:5])
        table.add_row(source, f"{slow:.0f}", f"{ours:.1f}", f"{slow / ours:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
