"""The command `compare`: the arms of a study, trained and measured alike."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_medt._cli.console import out, plain_errors, progress_bar, stop_on_interrupt


def compare(
    study: Annotated[Path, typer.Argument(help="A study, for example recipes/studies/axial-family.toml.")],
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Where the runs and the tables go; runs/STUDY by default.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Where the study's images lie; NAPARI_MEDT_DATA by default.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(metavar="ARM", help="Train this arm only; may be repeated.")] = None,
    max_minutes: Annotated[
        float | None, typer.Option(min=0.01, help="Stop after so long; the same command goes on later.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that make windows ahead.")] = None,
) -> None:
    """Train networks alike, with several seeds, and compare them on the same held-out images.

    What is finished is not trained again, and what was interrupted goes on.
    """
    with plain_errors():
        from napari_medt import training

        with stop_on_interrupt() as cancel, progress_bar() as report:
            found = training.run_study(
                study,
                out=out_folder or Path("runs") / study.stem,
                data=data,
                only=only or (),
                max_minutes=max_minutes,
                device=device,
                workers=workers,
                progress=report,
                cancel=cancel,
            )
        if found.rows:
            out.print(found.report.read_text("utf-8"), highlight=False, markup=False)
            out.print(
                f"{found.report}, with the figures in table.csv and scores.csv beside it", highlight=False, markup=False
            )
        if found.unfinished:
            left = f"{len(found.unfinished)} trainings are not finished ({', '.join(found.unfinished)})"
            out.print(f"{left}; the same command goes on with them", highlight=False, markup=False)
