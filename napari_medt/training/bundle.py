"""From a recipe to a model folder with measured scores."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from napari_medt.core import BadTrainingData, Cancel, Progress
from napari_medt.training.auto import FACTS
from napari_medt.training.card_entries import learnt_from, name_of
from napari_medt.training.data import find_data, load, load_samples
from napari_medt.training.datasets import DataSet
from napari_medt.training.evaluation import HELD_OUT, evaluate, to_scores
from napari_medt.training.loop import Run
from napari_medt.training.optimise import launch
from napari_medt.training.pieces import in_one_piece
from napari_medt.training.recipe import Recipe, read_recipe
from napari_medt.training.run_folder import alone_in
from napari_medt.training.splits import complete_split
from napari_medt.zoo.card import ModelCard, Score
from napari_medt.zoo.model import Model
from napari_medt.zoo.store import save_model

if TYPE_CHECKING:
    import pandas as pd


def train(
    recipe: str | Path,
    *,
    out: str | Path,
    data: str | Path | None = None,
    max_minutes: float | None = None,
    resume: bool = False,
    device: str = "auto",
    processes: int = 1,
    workers: int | None = None,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> Path | None:
    """Train a model as its recipe says, measure it on the held-out images, and write it as a model folder.

    Where neither the recipe nor the data say which images are held out, they are drawn by the seed of the recipe.

    Parameters
    ----------
    recipe
        A recipe in TOML.
    out
        Run folder: gets the plan, the metrics, checkpoints, and at the end `model/`, which `load_model` takes.
    data
        Folder of the images; by default the one that NAPARI_MEDT_DATA names.
    max_minutes
        Shorten the recipe so that the training ends in about this time.
    resume
        Go on from the checkpoint in `out`; of a run that has come to its end, measure the model and write it.
    device
        Where the network is trained: `"auto"` takes a CUDA device if there is one, else the processor. The same weights come
        about again only on the same kind of device.

    Returns
    -------
    Path
        The model folder.

    Raises
    ------
    BadTrainingData
        If the recipe, the split or an image is missing or does not fit, or `out` holds another run, or one that is running.
    Cancelled
        If `cancel` was set; the checkpoint stays.
    """
    path, folder = Path(recipe), Path(out)
    if (folder / "model").exists():
        raise BadTrainingData(f"{folder} holds a finished model already", remedy="choose another folder")
    plan = read_recipe(path)
    images = find_data(plan, Path(data) if data else None, beside=path.parent)
    images = complete_split(images, plan.seed)
    fabric = launch(device, processes=processes)
    with alone_in(folder) if fabric.is_global_zero else nullcontext():
        run = Run(
            plan,
            load_samples(images, "train", plan, progress=progress, cancel=cancel),
            load_samples(images, "validation", plan, cancel=cancel),
            folder=folder,
            max_minutes=max_minutes,
            resume=resume,
            fabric=fabric,
            workers=usual_workers(fabric.device) if workers is None else workers,
        )
        net = run.train(progress=progress, cancel=cancel)
        if not fabric.is_global_zero:
            return None
        cache = path.parent / FACTS  # of a recipe that was planned from these images
        entries = learnt_from(
            images, run.recipe, cache=cache if cache.is_file() else None, progress=progress, cancel=cancel
        )
        entries["recipe"] = name_of(path, plan, steps=run.step)
        model = Model(run.recipe.to_card(), net.eval(), fabric.device)
        entries["one_piece"] = in_one_piece(model, run.recipe, images, progress=progress, cancel=cancel)
        finish(run.recipe, net, folder / "model", images=images, entries=entries, progress=progress, cancel=cancel)
        return folder / "model"


def usual_workers(device: torch.device) -> int:
    """Processes that make windows ahead: for a GPU, which would wait for them; the processor has its hands full."""
    return min(8, (os.cpu_count() or 2) - 1) if device.type == "cuda" else 0


def finish(
    recipe: Recipe,
    net: nn.Module,
    folder: Path,
    *,
    images: DataSet,
    entries: Mapping[str, Any],
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> ModelCard:
    """Round the weights as they will be stored, measure them on the held-out images, and write the model folder.

    `entries` of the card are what neither the recipe nor the held-out images say.
    """
    with torch.no_grad():
        for tensor in (*net.parameters(), *net.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(tensor.half().to(tensor.dtype))
    card = recipe.to_card().model_copy(update=entries)
    if not images.on("test"):
        return save_model(folder, card, net)
    model = Model(card, net.eval(), next(net.parameters()).device)
    table = measure(model, recipe, images, progress=progress, cancel=cancel)
    table.to_csv(folder.parent / HELD_OUT, index=False)
    return save_model(folder, card.model_copy(update={"scores": scores_of(table, recipe)}), net)


def measure(
    model: Model, recipe: Recipe, images: DataSet, *, progress: Progress | None = None, cancel: Cancel | None = None
) -> pd.DataFrame:
    """Scores of a model on the held-out images, a row an image and structure, as `evaluate` gives them."""
    cases = images.on("test")
    return evaluate(
        model,
        (load(case, recipe, rule=images.rule) for case in cases),
        names=[case.name for case in cases],
        groups=[case.group for case in cases],
        metrics=("dice", "iou", "hd95"),
        progress=progress,
        cancel=cancel,
    )


def scores_of(table: pd.DataFrame, recipe: Recipe) -> tuple[Score, ...]:
    """The scores on a card, from the table of `HELD_OUT`; distances only of scans, since pixels have no common length."""
    measured = table.drop(columns="hd95", errors="ignore") if recipe.spacing is None else table
    return to_scores(measured, f"{Path(recipe.data.folder).name}, held out")
