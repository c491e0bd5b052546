"""The command `models`: which there are, what one of them is, whether they are whole, and a new one for the shelf."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from napari_medt._cli.console import out, plain_errors, progress_bar, say_error

if TYPE_CHECKING:
    from napari_medt.zoo import CheckResult, ModelCard


def models(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL]", help="Read the card of this one: a name, name@version or a model's folder."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the full cards as JSON.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Verify the digest of each model and run its test input.")
    ] = False,
    add: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Keep this model among your own: a folder, a .medt file or a checkpoint."),
    ] = None,
) -> None:
    """List the models: those that come with the package and your own; or read the card of one of them."""
    with plain_errors():
        from napari_medt.zoo import add_model, broken_models, list_models
        from napari_medt.zoo.shelf import locate

        if add is not None:
            kept = add_model(add)
            out.print(f"Kept as {kept.key}; use it with: napari-medt predict IMAGE -m {kept.key} -o MASK.tif")
            return
        named = {card.key: card.key for card in list_models()} if name is None else {locate(name)[1].key: name}
        cards = list_models() if name is None else [locate(name)[1]]
        broken = broken_models() if name is None else []
        results = _check_models(named) if check else {}
        if as_json:
            entries = [card.model_dump(mode="json") for card in cards]
            for entry, result in zip(entries, results.values(), strict=False):
                entry["check"] = {"ok": result.passed, "problem": result.problem, "difference": result.difference}
            sys.stdout.write(json.dumps(entries, indent=2) + "\n")
        else:
            if name is None or check:
                out.print(_as_table(cards, results))
            else:
                from napari_medt._cli.card_out import as_text

                out.print(as_text(cards[0]), highlight=False)
            for result in results.values():
                if not result.passed:
                    say_error(result.problem)
        for sentence in broken:
            say_error(sentence)
    if check and (broken or not all(result.passed for result in results.values())):
        raise typer.Exit(1)


def _check_models(named: dict[str, str]) -> dict[str, CheckResult]:
    """The result of the self-test by a model's key; `named` says by what it is found."""
    from napari_medt.zoo import check_model

    results = {}
    with progress_bar() as report:
        for number, (key, name) in enumerate(named.items()):
            report(number, len(named), f"Checking {key}")
            results[key] = check_model(name)
    return results


def _as_table(cards: Sequence[ModelCard], results: dict[str, CheckResult]) -> Table:
    headings = ["Model", "What it is", "Classes", "Dice\n(images)"] + ["Check"] * bool(results)
    table = Table(*headings, box=None, pad_edge=False, header_style="bold")
    for column in table.columns:
        column.overflow = "fold"  # names stay whole, however narrow the window
    table.columns[0].no_wrap = True
    table.columns[1].min_width = 13
    for card in cards:
        dice = f"{card.overall.dice:.3f} ({card.overall.images})" if card.overall else "not measured"
        row = [card.key, card.title, ", ".join(card.classes[1:]), dice]
        if results:
            row.append("good" if results[card.key].passed else "failed")
        table.add_row(*map(escape, row))
    return table
