"""The command `napari-medt`: the public doors from a shell.

Everything heavy is imported inside the commands, so that `--help` answers at once. Exit codes: 0 all went well,
1 something was found wrong (`doctor`, `models --check`), 2 a wish that could not be fulfilled, 130 interrupted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from napari_medt._cli.console import out, plain_errors, progress_bar, say_error, stop_on_interrupt
from napari_medt.core import MedtError

if TYPE_CHECKING:
    from napari_medt.zoo import CheckResult, ModelCard

app = typer.Typer(
    name="napari-medt",
    help="Segment medical images with attention-based models; look, correct, teach, run again.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _say_version(wanted: bool) -> None:
    if wanted:
        from napari_medt import __version__

        out.print(f"napari-medt {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", help="Say the version and stop.", callback=_say_version, is_eager=True)
    ] = False,
) -> None:
    """Segment medical images with attention-based models; look, correct, teach, run again."""
    # Read when torch is loaded: idle threads that spin for their next turn slow everything down on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@app.command()
def demo(
    screenshot: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Write a picture of the finished window here and close it.")
    ] = None,
) -> None:
    """Open napari with a sample image, the mask of medt-nuclei, an attention layer and the dock."""
    from napari_medt import _system

    with plain_errors():
        if not _system.display_answers():
            raise MedtError(
                "No window can be opened because no display answers",
                remedy="use `make demo` or put `LIBGL_ALWAYS_SOFTWARE=1 xvfb-run -a` in front of this command",
            )
        # The window is another process: this one stays free of Qt, and a crash of a graphics driver leaves a sentence.
        command = [sys.executable, "-m", "napari_medt.widgets.demo"]
        if screenshot is not None:
            command += ["--screenshot", str(screenshot)]
        code = subprocess.run(command, check=False).returncode
        if code < 0:
            raise MedtError(
                f"The window ended with signal {-code}, most likely in the graphics driver",
                remedy="try again with LIBGL_ALWAYS_SOFTWARE=1 set, and see `napari-medt doctor`",
            )
    raise typer.Exit(code)


@app.command()
def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print the full cards as JSON.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Verify the digest of each model and run its test input.")
    ] = False,
) -> None:
    """List the models: those that come with the package and your own versions."""
    with plain_errors():
        from napari_medt.zoo import broken_models, list_models

        cards, broken = list_models(), broken_models()
        results = _check_models(cards) if check else {}
        if as_json:
            entries = [card.model_dump(mode="json") for card in cards]
            for entry, result in zip(entries, results.values(), strict=False):
                entry["check"] = {"ok": result.passed, "problem": result.problem, "difference": result.difference}
            sys.stdout.write(json.dumps(entries, indent=2) + "\n")
        else:
            out.print(_models_table(cards, results))
            for result in results.values():
                if not result.passed:
                    say_error(result.problem)
        for sentence in broken:
            say_error(sentence)
    if check and (broken or not all(result.passed for result in results.values())):
        raise typer.Exit(1)


def _check_models(cards: Sequence[ModelCard]) -> dict[str, CheckResult]:
    """Return the result of the self-test for each model's key, in the order of the cards."""
    from napari_medt.zoo import check_model

    results = {}
    with progress_bar() as report:
        for number, card in enumerate(cards):
            report(number, len(cards), f"Checking {card.key}")
            results[card.key] = check_model(card.key)
    return results


def _models_table(cards: Sequence[ModelCard], results: dict[str, CheckResult]) -> Table:
    headings = ["Model", "What it is", "Network", "Classes", "Channels", "Dice (held out)"] + ["Check"] * bool(results)
    table = Table(*headings, box=None, pad_edge=False, header_style="bold")
    for card in cards:
        channels = card.channels if isinstance(card.channels, str) else ", ".join(card.channels)
        overall = next((score for score in card.scores if score.group in ("all", "overall", "")), None)
        dice = f"{overall.dice:.3f} on {overall.images} images" if overall else "not measured"
        row = [card.key, card.title, card.architecture, ", ".join(card.classes[1:]), channels, dice]
        if results:
            row.append("good" if results[card.key].passed else "failed")
        table.add_row(*map(escape, row))
    return table


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="One image or several.")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="File of the mask (.tif or .png); a folder when there are several images."),
    ],
    model: Annotated[
        str, typer.Option("--model", "-m", help="Name, name@version, a model's folder or a .pth checkpoint.")
    ] = "medt-nuclei",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    uncertainty: Annotated[
        Path | None,
        typer.Option(help="Also write the uncertainty, 0 to 1, here (.tif; a folder when there are several images)."),
    ] = None,
) -> None:
    """Segment images and write the masks; the pixel size is kept."""
    from napari_medt._cli.jobs import plan_outputs, predict_files

    with plain_errors():
        jobs = plan_outputs(images, output=output, uncertainty=uncertainty)
        with stop_on_interrupt() as cancel, progress_bar() as report:
            failures = predict_files(jobs, model, device=device, progress=report, cancel=cancel)
    for sentence in failures:
        say_error(sentence)
    if failures:
        raise typer.Exit(2)


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


@app.command()
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


@app.command()
def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False) -> None:
    """Say what is installed, which device runs, where files lie, and how to mend what is missing."""
    from napari_medt import doctor as surgery

    findings = surgery.examine()
    if as_json:
        sys.stdout.write(json.dumps(surgery.as_dict(findings), indent=2) + os.linesep)
    else:
        table = Table("", "", "", box=None, pad_edge=False, show_header=False)
        marks = {"ok": "[green]good[/]", "note": "[yellow]note[/]", "missing": "[bold red]missing[/]"}
        for finding in findings:
            table.add_row(marks[finding.state], finding.subject, escape(finding.detail))
            if finding.remedy:
                table.add_row("", "", f"[bold]> {escape(finding.remedy)}[/]")
        out.print(table)
    raise typer.Exit(0 if surgery.is_healthy(findings) else 1)
