"""Running a study: every arm with every seed, each in a folder of its own, then the tables.

What is finished is never trained again, and what was interrupted goes on, so the same call is made until all is done.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Collection
from pathlib import Path

from napari_medt.core import BadTrainingData, Cancel, Cancelled, Progress, silent
from napari_medt.io import atomic_write
from napari_medt.training.bundle import finish, usual_workers
from napari_medt.training.data import find_data, load_samples
from napari_medt.training.loop import Run
from napari_medt.training.optimise import launch
from napari_medt.training.recipe import Recipe
from napari_medt.training.run_folder import PLAN, planned
from napari_medt.training.study import MOST_STEPS, Arm, Study, read_study
from napari_medt.training.study_tables import OUTCOME, Comparison, folder_of, is_finished, write_tables


def run_study(
    study: str | Path,
    *,
    out: str | Path,
    data: str | Path | None = None,
    only: Collection[str] = (),
    max_minutes: float | None = None,
    device: str = "auto",
    workers: int | None = None,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> Comparison:
    """Train every arm of a study with every seed, measure them on the held-out images, and compare.

    Parameters
    ----------
    study
        A study in TOML.
    out
        Folder of the study: gets a run folder `ARM-SEED` each, `scores.csv`, `table.csv`, `table.md` and `comparison.png`.
    data
        Folder of the images; by default the one that NAPARI_MEDT_DATA names.
    only
        Names of arms; the others are not trained now.
    max_minutes
        Stop when this time is over; the same call goes on later.
    device, workers
        As for `train`.

    Returns
    -------
    Comparison
        Of all that is finished, with the names of the runs that are not.

    Raises
    ------
    BadTrainingData
        If the study, the split or an image is missing or does not fit, or `out` holds runs of another study.
    Cancelled
        If `cancel` was set; the checkpoints stay.
    """
    plan, folder = read_study(Path(study)), Path(out)
    if unknown := set(only) - {arm.name for arm in plan.arms}:
        names = ", ".join(arm.name for arm in plan.arms)
        raise BadTrainingData(f"The study {plan.name} has no arm {sorted(unknown)[0]}", remedy=f"choose from {names}")
    # Seed by seed, so that a study that is not finished is as fair as one that is.
    todo = [
        (arm, seed)
        for seed in plan.seeds
        for arm in plan.arms
        if not _is_done(plan, arm, seed, folder) and (not only or arm.name in only)
    ]
    if todo:
        until = _Until(max_minutes, cancel)
        try:
            _train(plan, todo, folder, data, device, workers, progress or silent, until)
        except Cancelled:
            if cancel is not None and cancel.is_set():
                raise
    return write_tables(plan, folder)


def _prefixed(report: Progress, head: str) -> Progress:
    return lambda done, total, message="", /: report(done, total, f"{head}: {message}")


class _Until(Cancel):
    """A request to stop that is also made when the time is over."""

    def __init__(self, minutes: float | None, other: Cancel | None) -> None:
        super().__init__()
        self._end = math.inf if minutes is None else time.monotonic() + 60 * minutes
        self._other = other

    def is_set(self) -> bool:
        asked = self._other is not None and self._other.is_set()
        return asked or super().is_set() or time.monotonic() > self._end

    def check(self) -> None:
        if self.is_set():
            raise Cancelled


def _train(
    plan: Study,
    todo: list[tuple[Arm, int]],
    out: Path,
    data: str | Path | None,
    device: str,
    workers: int | None,
    report: Progress,
    cancel: Cancel,
) -> None:
    images = find_data(plan.recipe, Path(data) if data else None, beside=plan.folder)
    if not images.on("test"):
        raise BadTrainingData("The split holds no image out to compare on", remedy="name some rows of it test")
    training, validation = (
        load_samples(images, side, plan.recipe, progress=report, cancel=cancel) for side in ("train", "validation")
    )
    fabric = launch(device)
    for number, (arm, seed) in enumerate(todo, start=1):
        folder = folder_of(out, arm, seed)
        recipe, minutes = _budgeted(plan, arm, seed, out)
        told = _prefixed(report, f"{number} of {len(todo)}, {folder.name}")

        run = Run(
            recipe,
            training,
            validation,
            folder=folder,
            max_minutes=minutes,
            resume=True,
            fabric=fabric,
            workers=usual_workers(fabric.device) if workers is None else workers,
        )
        net = run.train(progress=told, cancel=cancel)
        if not (folder / OUTCOME).is_file():  # else only the measuring was cut off
            outcome = {
                "parameters": sum(p.numel() for p in net.parameters()),
                "steps": run.step,
                "seconds_per_step": None if math.isnan(run.seconds_per_step) else run.seconds_per_step,
                "loading_share": run.loading_share,
                "device": str(run.device),
            }
            atomic_write(folder / OUTCOME, json.dumps(outcome, indent=1).encode())
        entries = {"recipe": f"the study {plan.name}, {arm.name}, {run.step} steps, seed {seed}"}
        finish(run.recipe, net, folder / "model", images=images, entries=entries, progress=told, cancel=cancel)


def _budgeted(plan: Study, arm: Arm, seed: int, out: Path) -> tuple[Recipe, float | None]:
    """What to train, and the minutes that decide its length; where one run of the arm has measured it, its length for all."""
    recipe = plan.recipe_of(arm, seed)
    if plan.minutes is None:
        return recipe, None
    for other in plan.seeds:
        folder = folder_of(out, arm, other)
        if (folder / PLAN).is_file():
            measured = planned(folder, plan.recipe_of(arm, other))
            if measured.steps < MOST_STEPS:
                return recipe.model_copy(update={"stages": measured.stages}), None
    return recipe, plan.minutes


def _is_done(plan: Study, arm: Arm, seed: int, out: Path) -> bool:
    """Whether there is a model; what there is must follow this study, to the length of the training."""
    folder, recipe = folder_of(out, arm, seed), plan.recipe_of(arm, seed)
    if (folder / PLAN).is_file() and planned(folder, recipe).stages != recipe.stages and plan.minutes is None:
        raise BadTrainingData(
            f"{folder} was trained for other steps than the study {plan.name} says", remedy="choose another folder"
        )
    return is_finished(folder)
