"""A model card as a person reads it in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from napari_medt.zoo import ModelCard, Score


def as_text(card: ModelCard) -> RenderableType:
    """Everything a card says: use and limits first, then what it wants, what it learnt from, and how well it does."""
    parts: list[RenderableType] = [Text(f"{card.title} ({card.key})", style="bold")]
    if card.description:
        parts.append(Text(card.description))
    said = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    said.add_column(no_wrap=True, style="bold")
    said.add_column()
    for title, text in _entries(card):
        if text:
            said.add_row(title, escape(text))
    parts += [Text(), said, Text()]
    if not card.scores:
        parts.append(Text("Not measured on held-out images."))
    for dataset in dict.fromkeys(score.dataset for score in card.scores):
        parts += [Text(f"Scores on images of {dataset}", style="bold")]
        parts.append(_scores([score for score in card.scores if score.dataset == dataset]))
    return Group(*parts)


def _entries(card: ModelCard) -> Iterator[tuple[str, str]]:
    from napari_medt.zoo.requirements import requirements

    yield "Finds", ", ".join(card.classes[1:]) + (" (which may overlap)" if card.overlapping else "")
    yield (
        "In one piece",
        f"{', '.join(card.one_piece)}: of each, only the largest part is kept" if card.one_piece else "",
    )
    yield "Intended use", card.intended_use
    yield "Limits", card.limits
    yield "Wants", "\n".join(requirements(card))
    yield "Learnt from", card.training_data
    yield "Recipe", card.recipe
    yield "Fine-tuned from", card.base
    yield "Network", card.architecture
    yield "Licence", card.licence
    yield "Attribution", card.attribution
    yield "Citation", card.citation
    yield "Notes", "\n".join(card.notes)
    yield "Weights", f"made {card.created}, SHA-256 {card.sha256}"


def _scores(scores: Sequence[Score]) -> Table:
    distances = any(score.hd95 is not None for score in scores)
    headings = ["Images of", "Structure", "Images", "Dice (95% interval)", "IoU (95% interval)"]
    table = Table(*headings, *(["HD95 in mm (95% interval)", "Missed"] * distances), box=None, pad_edge=False)
    table.columns[0].no_wrap = True
    for score in scores:
        row = [
            score.group,
            score.structure or "all",
            f"{score.images}",
            _with_interval(score.dice, score.dice_interval, 3),
            _with_interval(score.iou, score.iou_interval, 3),
        ]
        if distances:
            row += [_with_interval(score.hd95, score.hd95_interval, 2), f"{score.missed}"]
        table.add_row(*map(escape, row))
    return table


def _with_interval(value: float | None, ends: tuple[float, float] | None, digits: int) -> str:
    if value is None:
        return "-"
    return f"{value:.{digits}f}" + ("" if ends is None else f" ({ends[0]:.{digits}f} to {ends[1]:.{digits}f})")
