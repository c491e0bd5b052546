"""The files of a run: its plan, and its metrics with their curves; the names of its checkpoints."""

from __future__ import annotations

import csv
import json
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout  # which torch needs, too

from napari_medt.core import BadTrainingData
from napari_medt.io import atomic_write
from napari_medt.io.atomic import storage_error
from napari_medt.training.curves import draw_curves
from napari_medt.training.recipe import Recipe, parse_recipe

PLAN, METRICS, CURVES, LAST, BEST = "plan.json", "metrics.csv", "curves.png", "last.pt", "best.pt"
LOCK = ".lock"


def write_plan(folder: Path, recipe: Recipe, asked: Recipe, **facts: Any) -> None:
    """Write what is trained, what of it was asked for before the time was planned, with which versions, and other facts.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    plan = {
        "recipe": recipe.model_dump(),
        "asked": [stage.model_dump() for stage in asked.stages],
        "steps": recipe.steps,
        "versions": {
            "python": platform.python_version(),
            **_versions("torch", "numpy", "monai", "lightning-fabric"),
        },
        **facts,
    }
    atomic_write(folder / PLAN, json.dumps(plan, indent=1).encode())


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep a second training out of a run folder, which is made; a process that ends, however it does, lets go of it.

    What a killed training had half written is removed.

    Raises
    ------
    BadTrainingData
        If another process trains in it.
    StorageError
        If it cannot be written.
    """
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise BadTrainingData(
            f"Another training runs in {folder}", remedy="wait for it, stop it, or choose another folder"
        ) from None
    except OSError as error:
        raise storage_error(error, folder) from error
    try:
        for name in (PLAN, METRICS, CURVES, LAST, BEST):
            for unfinished in folder.glob(f".{name}-*.tmp"):
                with suppress(OSError):
                    unfinished.unlink()
        yield
    finally:
        lock.release()


def planned(folder: Path, recipe: Recipe, *, same_stages: bool = False) -> Recipe:
    """The recipe that the run in a folder follows, which may have been shortened.

    With `same_stages`, its stages must have been asked for as they are in `recipe`.

    Raises
    ------
    BadTrainingData
        If its plan is missing or damaged, or is that of another recipe.
    """
    path = folder / PLAN
    try:
        kept = json.loads(path.read_bytes())
        plan = parse_recipe(kept["recipe"], where=f"plan {path}")
    except (OSError, ValueError, KeyError) as error:
        raise BadTrainingData(
            f"The run in {folder} cannot go on: {PLAN} is missing or damaged", remedy="choose another folder"
        ) from error
    words = {name: getattr(recipe, name) for name in ("stages", "title", "description", "card")}
    stages = json.loads(json.dumps([stage.model_dump() for stage in recipe.stages]))
    other_stages = same_stages and kept.get("asked", stages) != stages
    if plan.model_copy(update=words) != recipe or other_stages:
        raise BadTrainingData(
            f"The run in {folder} follows another recipe",
            remedy="choose another folder for this one, or go on with the recipe as it was",
        )
    return recipe.model_copy(update={"stages": plan.stages})


def add_metrics(folder: Path, row: Mapping[str, str]) -> None:
    """Add a row and draw the curves; rows of a stretch that a resumed run goes through again are replaced."""
    path = folder / METRICS
    rows = []
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            rows = [old for old in csv.DictReader(file) if int(old["step"]) < int(row["step"])]
    lines = [",".join(row), *(",".join(r.get(column) or "" for column in row) for r in (*rows, row))]
    atomic_write(path, ("\n".join(lines) + "\n").encode())
    draw_curves(path, folder / CURVES)


def _versions(*packages: str) -> dict[str, str]:
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # as in a source tree that is not installed
            continue
    return found
