"""A model card as a person reads it."""

from __future__ import annotations

from html import escape
from typing import Any


def card_html(card: Any) -> str:
    """Return what a card says as simple rich text: purpose, training, results on unseen images, limits, licence."""
    rows: list[tuple[str, str]] = []
    classes = ", ".join(card.classes[1:])
    rows.append(("Finds", classes))
    rows.append(("For", card.intended_use or card.modality))
    rows.append(("Trained on", card.training_data))
    if card.base:
        rows.append(("Learnt from", card.base.split(" ")[0]))
    if card.scores:
        rows.append(("Unseen images", "<br>".join(_score(score) for score in card.scores)))
    rows.append(("Limits", card.limits))
    rows.append(("Licence", card.licence))
    rows.append(("Network", f"{card.architecture}, window {' × '.join(str(n) for n in card.window)}"))
    body = "".join(
        f"<tr><td style='padding:1px 10px 3px 0'><b>{title}</b></td><td style='padding:1px 0 3px 0'>"
        f"{text if title == 'Unseen images' else escape(text)}</td></tr>"
        for title, text in rows
        if text
    )
    return f"<div><b>{escape(card.title)}</b> ({escape(card.key)})<br>{escape(card.description)}</div><table>{body}</table>"


def _score(score: Any) -> str:
    where = escape(", ".join(filter(None, (score.group, score.structure))) or score.dataset)
    return f"{where}: Dice {score.dice:.2f}, IoU {score.iou:.2f} ({score.images} images)"
