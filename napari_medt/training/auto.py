"""From a folder of images to a recipe: look, check, split, plan, and write down what was decided, to be read and changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tomli_w

from napari_medt.core import BadTrainingData, Cancel, Progress, silent
from napari_medt.io import atomic_write
from napari_medt.io.atomic import storage_error
from napari_medt.nets.registry import Preset
from napari_medt.training.data_check import check_data
from napari_medt.training.datasets import DataSet, MaskRule, find_cases
from napari_medt.training.fingerprint import fingerprint
from napari_medt.training.planning import Plan, plan
from napari_medt.training.problems import Problem, describe
from napari_medt.training.recipe import Recipe, parse_recipe
from napari_medt.training.splits import complete_split, write_split
from napari_medt.training.survey import look_at_all
from napari_medt.zoo.card import slug

STEPS = 3000
OPTIMISATION: dict[str, Any] = {
    "learning_rate": 2e-3,
    "weight_decay": 1e-2,
    "warmup": 60,
    "clip": 5.0,
    "average": 0.99,
    "norm_batches": 30,
}
RECIPE, SPLIT, FACTS = "recipe.toml", "split.csv", "facts.json"
_PICTURES = {"scale": (0.6, 1.7), "rotate": 45.0, "quarter_turns": True, "mirror": (0, 1)}
_SCANS = {"scale": (0.85, 1.2), "rotate": 15.0}  # not mirrored: left and right may be different structures
_MOVES: dict[str, dict[str, Any]] = {
    "microscopy": _PICTURES,
    "fundus": _PICTURES | {"scale": (0.75, 1.33)},
    "ct": _SCANS,
    "mr": _SCANS,
}


def plan_recipe(
    data: str | Path,
    net: str,
    *,
    out: str | Path,
    classes: tuple[str, ...] | None = None,
    rule: MaskRule | None = None,
    preset: Preset = "small",
    memory_gb: float = 8.0,
    seed: int = 0,
    progress: Progress = silent,
    cancel: Cancel | None = None,
) -> tuple[Path, list[Problem]]:
    """Plan the training of a network on a folder of images.

    Parameters
    ----------
    data
        A folder in any layout of `find_cases`. Sides of a split that it says are kept; else patients are drawn.
    net
        One of `list_nets()`.
    out
        The run folder: gets `recipe.toml`, which `train` follows, and `split.csv`.
    classes
        Names by label value, background first, where the data do not say them.
    rule
        What the numbers of the masks are, see `DataSet`.
    preset, memory_gb
        As for `planning.plan`.
    seed
        Of the split and the training.

    Returns
    -------
    path
        Of the recipe.
    problems
        What a person should know about the data; none of them is an error.

    Raises
    ------
    BadTrainingData
        If the data cannot be learnt from, with all errors that were found; or if `out` holds a plan already.
    StorageError
        If `out` cannot be made or written to.
    Cancelled
        If `cancel` was set.
    """
    folder = Path(out)
    if (folder / RECIPE).exists():
        raise BadTrainingData(
            f"{folder} holds a plan already",
            remedy=f"go on with it by --recipe {folder / RECIPE} --out {folder} --resume, or choose another folder",
        )
    dataset = find_cases(Path(data), rule=rule)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, folder, doing="made") from error
    looking: dict[str, Any] = {"cache": folder / FACTS, "progress": progress, "cancel": cancel}
    digests = {facts.name: facts.digest for facts in look_at_all(dataset, **looking)}
    dataset = complete_split(dataset, seed, digests)
    problems = check_data(dataset, classes, **looking)
    if any(problem.severity == "error" for problem in problems):
        raise BadTrainingData(f"{data} cannot be learnt from as it is:\n{describe(problems).removesuffix('.')}")
    write_split(dataset, folder / SPLIT)
    made = plan(fingerprint(dataset, classes, **looking), net, preset=preset, memory_gb=memory_gb)
    recipe = to_recipe(made, dataset, seed=seed)
    notes = "".join(f"# {note}\n" for note in made.notes)
    heading = (
        f"# Made from what {dataset.folder.name} is like; change it as you like, then, in this folder:\n"
        f"# napari-medt train --recipe {RECIPE} --out .\n"
    )
    text = tomli_w.dumps(recipe.model_dump(mode="json", exclude_none=True, exclude_defaults=True))
    return atomic_write(folder / RECIPE, f"{heading}{notes}\n{text}".encode()), problems


def to_recipe(made: Plan, dataset: DataSet, *, seed: int) -> Recipe:
    """The recipe of a plan, with a schedule that suits small networks."""
    shared = (
        "architecture",
        "net_options",
        "classes",
        "channels",
        "window",
        "spacing",
        "orientation",
        "crop",
        "intensity",
        "value_range",
        "field_of_view_mm",
    )
    where = dataset.folder
    content: dict[str, Any] = {
        "name": slug(f"{made.architecture}-{where.name}"),
        "title": f"{where.name}, {made.architecture}",
        "seed": seed,
        "data": {
            "folder": str(where.resolve()),
            "layout": dataset.layout,
            "rule": dataset.rule,
            "split": SPLIT,
            "values": made.values,
            "foreground": made.foreground_share,
        },
        "augmentation": {"preset": made.augmentation, **_MOVES[made.augmentation]},
        "stages": [{"window": made.window, "batch": made.batch, "steps": STEPS}],
        "optimisation": {
            **OPTIMISATION,
            "gates_held": 0.1 if "gated" in made.architecture or made.architecture == "medt" else 0.0,
        },
        "card": {"modality": made.modality, "training_data": f"{where.name}, {len(dataset.cases)} cases"},
    }
    return parse_recipe({entry: getattr(made, entry) for entry in shared} | content, where="plan")
