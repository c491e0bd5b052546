"""The command `train`: by a recipe, or with the names of the published code's command line."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from napari_medt._cli.console import out, plain_errors, progress_bar, stop_on_interrupt
from napari_medt.core import MedtError


class OriginalNetwork(StrEnum):
    """The networks under the names of the authors' command line."""

    AXIAL = "axialunet"
    GATED = "gatedaxialunet"
    MEDT = "MedT"
    LOGO = "logo"


class YesNo(StrEnum):
    """A switch that is given as a word."""

    YES = "yes"
    NO = "no"


_ORIGINAL = "Names of the original command line"


def train(
    recipe: Annotated[Path | None, typer.Option(help="A recipe, for example recipes/medt-nuclei.toml.")] = None,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Where checkpoints and the model go; runs/NAME by default.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Where the recipe's images lie; NAPARI_MEDT_DATA by default.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint in --out (recipes only).")
    ] = False,
    max_minutes: Annotated[float | None, typer.Option(min=0.01, help="Stop in good order after so long.")] = None,
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
    """Train a model, by a recipe or with the names of the original command line.

    Give either --recipe, or --train_dataset with the other names of the published code.
    """
    with plain_errors():
        if (recipe is None) == (train_dataset is None):
            raise MedtError(
                "Training needs either a recipe or a folder of images, and got "
                + ("both" if recipe is not None else "neither"),
                remedy="give --recipe FILE, or --train_dataset FOLDER with img/ and labelcol/ inside",
            )
        from napari_medt import training

        name = recipe.stem if recipe is not None else modelname.value
        target = out_folder or direc or Path("runs") / name

        with stop_on_interrupt() as cancel, progress_bar() as report:
            if recipe is not None:
                folder = training.train(
                    recipe,
                    out=target,
                    data=data,
                    max_minutes=max_minutes,
                    resume=resume,
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
        out.print(f"The model lies in {folder}; use it with: napari-medt predict IMAGE -m {folder} -o MASK.tif")
