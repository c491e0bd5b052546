"""The command `evaluate`: how good predictions are, held to references."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from napari_medt._cli.console import out, plain_errors, progress_bar, say_error, stop_on_interrupt
from napari_medt.core import MedtError


class EmptyPair(StrEnum):
    """What is said of a structure that neither mask has."""

    AGREE = "agree"
    NOT_APPLICABLE = "not-applicable"


def evaluate(
    prediction: Annotated[
        Path,
        typer.Argument(
            metavar="PRED",
            help="A mask, a folder of them, or a table (.csv) with the columns prediction and reference, and case if wanted.",
        ),
    ],
    reference: Annotated[
        Path | None,
        typer.Argument(metavar="[REF]", help="What is right: a mask, or a folder of masks of the same names."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="PRED are images, which this model segments first.")
    ] = None,
    device: Annotated[str, typer.Option(help="For the model: auto, cpu, cuda, cuda:1, mps.")] = "auto",
    against: Annotated[
        Path | None, typer.Option(metavar="PRED2", help="Other predictions of the same cases: do the two differ?")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(metavar="NAME,NAME", help="What is measured, such as dice,hd95,surface_dice; or all.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option(metavar="MM", min=0, help="Of the surface Dice, in mm, or the files' own unit.")
    ] = 1.0,
    names: Annotated[
        str | None, typer.Option(metavar="1=NAME,2=NAME", help="Names of the labels, instead of those in the files.")
    ] = None,
    instances: Annotated[
        bool, typer.Option("--instances", help="Each label is one object, such as a nucleus, not a structure.")
    ] = False,
    binary: Annotated[
        bool, typer.Option("--binary", help="All that is not 0 is one structure, whatever its number.")
    ] = False,
    both_empty: Annotated[
        EmptyPair, typer.Option(help="A structure that neither mask has: the best score, or no score.")
    ] = EmptyPair.AGREE,
    resample: Annotated[
        bool, typer.Option("--resample", help="Bring predictions onto the grid of the reference.")
    ] = False,
    as_csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write the score of each case and structure here.")
    ] = None,
    as_json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write everything, with means and intervals, here.")
    ] = None,
) -> None:
    """Measure how far predictions agree with references: overlap, surface distances, volumes, objects.

    Files in two folders belong together when their names are the same, up to the ending and words such as _mask or _gt.
    """
    from napari_medt._cli.wishes import parse_names

    with plain_errors():
        if instances and binary:
            raise MedtError("--instances and --binary do not go together", remedy="choose one of them")
        if model is not None and against is not None:
            raise MedtError("--model and --against do not go together", remedy="write the model's masks first")
        from napari_medt._cli.pairing import left_out, list_pairs
        from napari_medt._cli.scores_out import as_table, closing_notes, paired_table, write_csv, write_json
        from napari_medt._cli.scoring import Wishes, score_pairs

        wishes = Wishes(
            metrics=_chosen_metrics(metrics, instances=instances),
            tolerance=tolerance,
            both_empty="agree" if both_empty is EmptyPair.AGREE else "not applicable",
            names=parse_names(names) if names else {},
            objects=instances,
            binary=binary,
            resample=resample,
        )
        pairs = list_pairs(prediction, reference)
        with stop_on_interrupt() as cancel, progress_bar() as report:
            segmenter = None
            if model is not None:
                from napari_medt.zoo import load_model

                report(0, 1, f"Loading {model}")
                segmenter = load_model(model, device=device)
            found, failures = score_pairs(pairs, wishes, model=segmenter, progress=report, cancel=cancel)
            other = None
            if against is not None and found is not None:
                other, failures = score_pairs(list_pairs(against, reference), wishes, progress=report, cancel=cancel)
        if found is None or failures:
            for sentence in failures:
                say_error(sentence)
            raise typer.Exit(2)
        if other is not None and other.cases != found.cases:
            raise MedtError("PRED and PRED2 are not of the same cases", remedy="give two tables with the same cases")
        if as_csv is not None:
            write_csv(found, wishes, as_csv)
        if as_json is not None:
            write_json(found, wishes, as_json, other=other)
        out.print(as_table(found, wishes))
        if other is not None:
            out.print(f"\n{prediction} less {against}, case by case:", highlight=False, markup=False)
            out.print(paired_table(found, other, wishes))
        if spare := left_out(prediction, pairs):
            told = ", ".join(spare[:5]) + (" ..." if len(spare) > 5 else "")
            out.print(f"Note: {len(spare)} without a reference were left out: {told}", highlight=False, markup=False)
        for note in closing_notes(found, wishes, other=other):
            out.print(note, highlight=False, markup=False)


def _chosen_metrics(text: str | None, *, instances: bool) -> tuple[str, ...]:
    from napari_medt.measure import DEFAULT, DEFAULT_OBJECTS, METRICS

    if text is None:
        return DEFAULT_OBJECTS if instances else DEFAULT
    if text.strip() == "all":
        return tuple(METRICS)
    chosen = tuple(dict.fromkeys(name.strip().lower() for name in text.split(",") if name.strip()))
    unknown = [name for name in chosen if name not in METRICS]
    if unknown or not chosen:
        raise MedtError(
            f"There is no measure {', '.join(unknown)}".rstrip(), remedy=f"choose from {', '.join(METRICS)}"
        )
    return chosen
