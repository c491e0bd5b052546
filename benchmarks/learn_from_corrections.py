"""What a few corrected pictures teach the nuclei model in two minutes: a systematic mistake mended, a new structure learnt.

python -m benchmarks.learn_from_corrections {inverted,axons} [--data DATA] [--model medt-nuclei] [--minutes 2 | --steps N]
    [--learns everything] [--no-rehearsal]

inverted: fluorescence with its grey values turned round, which the model hardly knows. It learns from four such pictures with
right masks, and rehearses two synthetic pictures with the masks that it makes of them itself. It is measured before and after
on held-out pictures that are turned round, which it is to learn, and on held-out pictures as they are, which it is not to forget.

axons: myelin and axons in electron microscopy, two structures the model has never seen, from four pictures of two rats,
and is measured on pictures of two other rats.

Pictures are cut down to their middle, so that measuring takes less time than learning. Nothing is stored.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from imageio.v3 import imread
from rich.console import Console
from rich.table import Table

from napari_medt.sample_data import fluorescence, tissue
from napari_medt.training import evaluate
from napari_medt.training.corrections import Correction
from napari_medt.training.fine_tuning import fine_tune
from napari_medt.zoo import Model, load_model
from napari_medt.zoo.shelf import HOME_VARIABLE

Pair = tuple[npt.NDArray[Any], npt.NDArray[np.uint8]]
TREE = Path(__file__).parents[1]
LEARNT, MEASURED = 4, 16  # pictures
AXONS = ("background", "myelin", "axon")
MEASURED_RATS = ("rat2", "rat7")


def middle(array: npt.NDArray[Any], edge: int) -> npt.NDArray[Any]:
    """The middle of `(y, x, ...)`."""
    y, x = (max(0, (size - edge) // 2) for size in array.shape[:2])
    return array[y : y + edge, x : x + edge]


def nuclei(data: Path, side: str, count: int, edge: int) -> list[Pair]:
    """Fluorescence pictures with nuclei in their middle and their masks, from all over one side of the split."""
    with (TREE / "recipes" / "nuclei-split.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == side and row["group"] == "fluorescence"]
    pairs = []
    for row in rows:
        folder = data / "nuclei_dsb2018"
        mask = (middle(imread(folder / "labels" / row["file"]), edge) > 0).astype(np.uint8)
        if mask.mean() > 0.05:
            pairs.append((middle(imread(folder / "images" / row["file"]), edge), mask))
    return pairs[:: max(1, len(pairs) // count)][:count]


def turned_round(pair: Pair) -> Pair:
    """Bright where it was dark, as far as the picture's own values reach."""
    image, mask = pair
    return image.max() - image + image.min(), mask


def axons(data: Path, *, measured: bool, edge: int) -> list[Pair]:
    """Pictures of axons at half their resolution."""
    folder, pairs = data / "axon_sem", []
    for path in sorted((folder / "images").glob("*.png")):
        if any(rat in path.name for rat in MEASURED_RATS) == measured:
            image, mask = imread(path), imread(folder / "labels" / path.name)
            pairs.append((middle(image[::2, ::2], edge), middle(mask[::2, ::2], edge).astype(np.uint8)))
    return pairs


def dice(model: Model, pairs: list[Pair]) -> dict[str, float]:
    """Mean Dice of each structure."""
    return evaluate(model, pairs).groupby("class")["dice"].mean().to_dict()


def rehearsal() -> list[Correction]:
    """The synthetic pictures of nuclei; the model labels them itself."""
    pictures = (fluorescence()[0][0], tissue()[0][0])
    return [Correction(middle(picture, 256), None, group="rehearsal") for picture in pictures]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["inverted", "axons"])
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("NAPARI_MEDT_DATA", TREE.parent / "shared" / "data")
    )
    parser.add_argument("--model", default="medt-nuclei")
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--steps", type=int, help="instead of minutes, for a busy computer")
    parser.add_argument("--learns", default="everything")
    parser.add_argument("--no-rehearsal", action="store_true")
    wish = parser.parse_args()
    model = load_model(wish.model, device="cpu")
    if wish.what == "inverted":
        held_out = nuclei(wish.data, "test", MEASURED, 128)
        measured = {"turned round": [turned_round(pair) for pair in held_out], "as they are": held_out}
        learnt = [turned_round(pair) for pair in nuclei(wish.data, "train", LEARNT, 256)]
        cases = [Correction(*pair) for pair in learnt] + ([] if wish.no_rehearsal else rehearsal())
        options: dict[str, Any] = {}
        before = {name: dice(model, pairs) for name, pairs in measured.items()}
    else:
        measured = {"other rats": axons(wish.data, measured=True, edge=384)}
        cases = [Correction(*pair) for pair in axons(wish.data, measured=False, edge=384)]
        options = {"classes": AXONS}
        before = {}
    options |= {"steps": wish.steps} if wish.steps else {"minutes": wish.minutes}
    steps: list[int] = []
    began, used = time.monotonic(), time.process_time()
    with tempfile.TemporaryDirectory() as home:
        os.environ[HOME_VARIABLE] = home
        new = fine_tune(
            model,
            cases,
            learns=wish.learns,
            on_step=lambda event: steps.append(event["step"]) if "loss" in event else None,
            **options,
        )
    seconds, used = time.monotonic() - began, time.process_time() - used
    table = Table("pictures", "structure", "before", "after", box=None)
    for name, pairs in measured.items():
        for structure, after in dice(new, pairs).items():
            old = before.get(name, {}).get(structure)
            table.add_row(name, structure, "-" if old is None else f"{old:.3f}", f"{after:.3f}")
    guard = "without rehearsal" if wish.no_rehearsal or wish.what == "axons" else "with rehearsal"
    table.title = (
        f"{wish.model}, {wish.learns}, {guard}: {max(steps)} steps, {seconds:.0f} s ({used:.0f} s of processor)"
    )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
