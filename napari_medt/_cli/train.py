"""The command `train`: by a recipe, or with the names of the published code's command line."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from napari_medt._cli.console import out, plain_errors, progress_bar, stop_on_interrupt
from napari_medt.core import Cancel, MedtError, Progress


class OriginalNetwork(StrEnum):
    """The networks under the names of the authors' command line."""

    AXIAL = "axialunet"
    GATED = "gatedaxialunet"
    MEDT = "MedT"
    LOGO = "logo"


class Masks(StrEnum):
    """What the numbers of masks are."""

    CLASSES = "classes"
    OBJECTS = "objects"
    WHITE = "white"


class YesNo(StrEnum):
    """A switch that is given as a word."""

    YES = "yes"
    NO = "no"


_ORIGINAL = "Names of the original command line"
_OWN = "From a folder of images"
_HOW = "How it runs"


def train(
    images: Annotated[
        Path | None,
        typer.Argument(help="Folder of images and masks, for which a recipe is planned.", show_default=False),
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="A recipe, for example recipes/medt-nuclei.toml.")] = None,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Where checkpoints and the model go; runs/NAME by default.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Where the recipe's images lie; NAPARI_MEDT_DATA by default.")
    ] = None,
    net: Annotated[
        str, typer.Option(help="Which network: unet, attention-unet, medt, unetr ...", rich_help_panel=_OWN)
    ] = "attention-unet",
    classes: Annotated[
        str, typer.Option(help="Names of the label values from 0 on: background,liver,tumour.", rich_help_panel=_OWN)
    ] = "",
    masks: Annotated[
        Masks | None,
        typer.Option(
            help="What their numbers are: classes, single objects, or white for black and white pictures.",
            rich_help_panel=_OWN,
        ),
    ] = None,
    memory: Annotated[float, typer.Option(min=0.1, help="Memory for training, in GB.", rich_help_panel=_OWN)] = 8.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the split and the training.", rich_help_panel=_OWN)] = 0,
    plan_only: Annotated[
        bool, typer.Option("--plan-only", help="Check the data and write the recipe, no more.", rich_help_panel=_OWN)
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint in --out (recipes only).", rich_help_panel=_HOW)
    ] = False,
    max_minutes: Annotated[
        float | None, typer.Option(min=0.01, help="Shorten the training to about so long.", rich_help_panel=_HOW)
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda (recipes only).", rich_help_panel=_HOW)] = "auto",
    processes: Annotated[
        int,
        typer.Option(min=1, help="Processes or GPUs of this computer; torchrun sets its own.", rich_help_panel=_HOW),
    ] = 1,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that make windows ahead.", rich_help_panel=_HOW)
    ] = None,
    modelname: Annotated[
        OriginalNetwork, typer.Option("--modelname", rich_help_panel=_ORIGINAL)
    ] = OriginalNetwork.MEDT,
    imgsize: Annotated[int, typer.Option("--imgsize", min=8, rich_help_panel=_ORIGINAL)] = 128,
    batch_size: Annotated[int, typer.Option("--batch_size", "--batch-size", min=1, rich_help_panel=_ORIGINAL)] = 1,
    epoch: Annotated[int, typer.Option("--epoch", "--epochs", min=1, rich_help_panel=_ORIGINAL)] = 400,
    save_freq: Annotated[int, typer.Option("--save_freq", "--save-freq", min=1, rich_help_panel=_ORIGINAL)] = 10,
    learning_rate: Annotated[
        float, typer.Option("--learning_rate", "--learning-rate", min=0.0, rich_help_panel=_ORIGINAL)
    ] = 1e-3,
    gray: Annotated[YesNo, typer.Option("--gray", help="Grey images.", rich_help_panel=_ORIGINAL)] = YesNo.NO,
    train_dataset: Annotated[
        Path | None,
        typer.Option(
            "--train_dataset", "--train-dataset", help="Folder with img/ and labelcol/.", rich_help_panel=_ORIGINAL
        ),
    ] = None,
    val_dataset: Annotated[
        Path | None,
        typer.Option("--val_dataset", "--val-dataset", help="The same, held out.", rich_help_panel=_ORIGINAL),
    ] = None,
    direc: Annotated[
        Path | None, typer.Option("--direc", help="Where results go; the same as --out.", rich_help_panel=_ORIGINAL)
    ] = None,
) -> None:
    """Train a model: on a folder of images, by a recipe, or with the names of the original command line.

    Give one of IMAGES, --recipe, and --train_dataset with the other names of the published code.
    """
    with plain_errors():
        if sum(given is not None for given in (images, recipe, train_dataset)) != 1:
            raise MedtError(
                "Training needs one thing to go by: a folder of images, a recipe, or the original names",
                remedy="give IMAGES, or --recipe FILE, or --train_dataset FOLDER with img/ and labelcol/ inside",
            )
        if images is not None and not plan_only and max(processes, int(os.environ.get("WORLD_SIZE", "1"))) > 1:
            raise MedtError(
                "Several processes follow a recipe, as each would plan one of its own",
                remedy="plan first with --plan-only, then give the recipe with --recipe",
            )
        from napari_medt import training

        name = recipe.stem if recipe is not None else f"{net}-{images.resolve().name}" if images else modelname.value
        target = out_folder or direc or Path("runs") / name

        with stop_on_interrupt() as cancel, progress_bar() as report:
            if images is not None:
                recipe = _planned(
                    images, target, report, cancel, net=net, classes=classes, masks=masks, memory_gb=memory, seed=seed
                )
                if plan_only:
                    return
            if recipe is not None:
                folder = training.train(
                    recipe,
                    out=target,
                    data=data,
                    max_minutes=max_minutes,
                    resume=resume,
                    device=device,
                    processes=processes,
                    workers=workers,
                    progress=report,
                    cancel=cancel,
                )
            else:
                from napari_medt.training.legacy import train_from_original_arguments

                folder = train_from_original_arguments(
                    modelname=modelname.value,
                    imgsize=imgsize,
                    batch_size=batch_size,
                    epoch=epoch,
                    save_freq=save_freq,
                    learning_rate=learning_rate,
                    gray=gray is YesNo.YES,
                    train_dataset=train_dataset,
                    val_dataset=val_dataset,
                    direc=target,
                    max_minutes=max_minutes,
                    progress=report,
                    cancel=cancel,
                )
        if folder is not None:  # where several processes train, one of them writes
            out.print(f"The model lies in {folder}; use it with: napari-medt predict IMAGE -m {folder} -o MASK.tif")
            if recipe is not None:
                out.print(_score_of(folder), highlight=False)


def _score_of(folder: Path) -> str:
    """How well the model in a folder did, in one sentence."""
    from napari_medt.zoo.shelf import locate

    score = locate(folder)[1].overall
    if score is None:
        return "No held-out images tell how well the model does."
    number = "1 held-out image" if score.images == 1 else f"{score.images} held-out images"
    spread = "" if score.dice_interval is None else " (95 % interval {:.3f} to {:.3f})".format(*score.dice_interval)
    return f"Its mean Dice on {number} is {score.dice:.3f}{spread}."


def _planned(
    images: Path,
    target: Path,
    report: Progress,
    cancel: Cancel,
    *,
    net: str,
    classes: str,
    masks: Masks | None,
    memory_gb: float,
    seed: int,
) -> Path:
    """Plan a training and say what was found and decided."""
    from napari_medt.training.auto import plan_recipe
    from napari_medt.training.problems import describe
    from napari_medt.training.recipe import read_recipe

    names = tuple(filter(None, map(str.strip, classes.split(",")))) or None
    made, problems = plan_recipe(
        images,
        net,
        out=target,
        classes=names,
        rule=masks.value if masks else None,
        memory_gb=memory_gb,
        seed=seed,
        progress=report,
        cancel=cancel,
    )
    out.print(describe(problems), markup=False)
    plan = read_recipe(made)
    stage = plan.stages[-1]
    window, unit = " x ".join(map(str, plan.window)), "pixels" if plan.spacing is None else "voxels"
    spacing = "" if plan.spacing is None else f" of {' x '.join(f'{length:g}' for length in plan.spacing)} mm"
    out.print(
        f"{plan.architecture} is to learn {', '.join(plan.classes[1:])}: "
        f"{plan.steps} steps of {stage.batch} windows of {window} {unit}{spacing}.",
        markup=False,
    )
    out.print(
        f"The plan lies in {made}; it can be changed, and is followed with: "
        f"napari-medt train --recipe {made} --out {target}",
        markup=False,
    )
    return made
