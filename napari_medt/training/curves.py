"""The curves of a run as a picture."""

from __future__ import annotations

import csv
from pathlib import Path

from napari_medt.io import atomic_write


def draw_curves(metrics: Path, picture: Path) -> None:
    """Draw loss and validation scores over steps, from `metrics.csv` to a PNG; nothing where Matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    with metrics.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    steps = [int(row["step"]) for row in rows]
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(steps, [float(row["loss"]) for row in rows], marker="o", color="black")
    left.set(xlabel="step", ylabel="loss")
    for column in [name for name in rows[0] if name.startswith("dice ")]:
        whole = column == "dice all"
        right.plot(
            steps,
            [float(row[column] or "nan") for row in rows],
            marker="o",
            label=column.removeprefix("dice ") or "one kind",
            color="black" if whole else None,
            linewidth=2 if whole else 1,
        )
    right.set(xlabel="step", ylabel="Dice, validation", ylim=(0, 1))
    right.legend(frameon=False)
    atomic_write(picture, lambda file: figure.savefig(file, format="png", dpi=120))
