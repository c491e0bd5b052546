"""The command `napari-medt`: the public doors from a shell.

Everything heavy is imported inside the commands, so that `--help` answers at once. Exit codes: 0 all went well,
1 something was found wrong (`doctor`, `models --check`), 2 a wish that could not be fulfilled, 130 interrupted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from napari_medt._cli.attention import attention
from napari_medt._cli.compare import compare
from napari_medt._cli.console import out, plain_errors, progress_bar, say_error, stop_on_interrupt
from napari_medt._cli.evaluate import evaluate
from napari_medt._cli.export import export
from napari_medt._cli.models import models
from napari_medt._cli.train import train
from napari_medt._cli.wishes import Plane, parse_doubt, parse_region
from napari_medt.core import MedtError

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


app.command()(models)


@app.command()
def info(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="An image, a mask, or a folder of DICOM files.")],
    choose: Annotated[list[str] | None, typer.Option(help="Which of several, where the file leaves it open.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Say what is in a file: format, shape, spacing, orientation, channels, values, series, and what is odd."""
    with plain_errors():
        from napari_medt._cli.describe import as_table, describe

        with stop_on_interrupt() as cancel, progress_bar() as report:
            found = describe(path, choose=choose or (), progress=report, cancel=cancel)
        if as_json:
            sys.stdout.write(json.dumps(found, indent=2) + "\n")
        else:
            out.print(as_table(found), highlight=False)


@app.command()
def convert(
    path: Annotated[Path, typer.Argument(metavar="IN", help="An image or a mask, in any format that is read.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="Its ending says the format.")],
    choose: Annotated[list[str] | None, typer.Option(help="Which of several, where the file leaves it open.")] = None,
    like: Annotated[
        Path | None, typer.Option(metavar="IMAGE", help="The image a mask belongs to; DICOM (.dcm) needs it.")
    ] = None,
) -> None:
    """Write an image or a mask in another format; geometry, values and names of labels are kept."""
    with plain_errors():
        from napari_medt._cli.convert import convert_file

        with stop_on_interrupt() as cancel, progress_bar() as report:
            written, notes = convert_file(path, target, choose=choose or (), like=like, progress=report, cancel=cancel)
        out.print(f"{path} -> {written}", highlight=False, markup=False)
        for note in notes:
            out.print(f"Note: {note}", highlight=False, markup=False)


@app.command()
def predict(
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE...", help="One image or several; a table (.csv), or a folder of them."),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="File of the mask, whose ending says the format; a folder for several images."
        ),
    ],
    model: Annotated[
        str, typer.Option("--model", "-m", help="Name, name@version, a model's folder or a .pth checkpoint.")
    ] = "medt-nuclei",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    uncertainty: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|KIND",
            help="Also write the uncertainty, 0 to 1: the entropy to this file (a folder when there are several images); "
            "or entropy, margin, flips or dropout, which goes beside the mask.",
        ),
    ] = None,
    roi: Annotated[
        str | None,
        typer.Option(metavar="Z0:Z1,Y0:Y1,X0:X1", help="Segment only this part; the mask is empty elsewhere."),
    ] = None,
    tta: Annotated[bool, typer.Option("--tta", help="Take the mean over all mirror images.")] = False,
    plane: Annotated[Plane | None, typer.Option(help="Which slices of a scan a 2D model goes through.")] = None,
    choose: Annotated[list[str] | None, typer.Option(help="Which of several, where a file leaves it open.")] = None,
    scheduler: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="Let the workers of this Dask scheduler do it, such as tcp://host:8786."),
    ] = "local",
) -> None:
    """Segment images and write the masks, in the place and size of the image.

    A table has the column `image` and, if wanted, `case`, `mask` and `choose`. Of a table or a folder a record is kept beside
    the masks, so that a later run does only what is new or has changed.
    """
    from napari_medt._cli.jobs import is_cohort, plan_outputs, predict_cohort, predict_files

    with plain_errors():
        doubt, place = parse_doubt(uncertainty) if uncertainty else (None, None)
        options = {
            "uncertainty": doubt or False,
            "flips": tta,
            "plane": plane.value if plane else None,
            "roi": parse_region(roi) if roi else None,
        }
        where = {"device": device, "compute": scheduler}
        with stop_on_interrupt() as cancel, progress_bar() as report:
            if is_cohort(images, output):
                if place is not None or choose:
                    raise MedtError(
                        f"--{'choose' if choose else 'uncertainty FILE'} is for one image, not for a table or a folder",
                        remedy="write it into the column choose of a table"
                        if choose
                        else "give a kind, such as entropy",
                    )
                outcomes = predict_cohort(
                    images[0], output, model, **where, options=options, progress=report, cancel=cancel
                )
                failures = [f"{outcome.case}: {outcome.reason}" for outcome in outcomes if outcome.state == "failed"]
            else:
                jobs = plan_outputs(
                    images, output=output, uncertainty=place, beside=doubt is not None and place is None
                )
                failures = predict_files(
                    jobs, model, **where, choose=choose or (), options=options, progress=report, cancel=cancel
                )
    for sentence in failures:
        say_error(sentence)
    if failures:
        raise typer.Exit(2)


app.command()(attention)
app.command()(export)
app.command()(train)
app.command()(evaluate)
app.command()(compare)


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
