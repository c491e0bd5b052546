"""What the figures of a map mean, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from napari_medt.attention.faithfulness import Faithfulness

Verdict = Literal["untestable", "chance", "slight", "clear", "strong"]

LEAST_FALL = 0.1  # of the probability when all is removed; below it, removing a part cannot tell anything
LIKELY = 0.05  # chance of random maps to do as well, above which a map does no better than chance
CLEAR, STRONG = 0.1, 0.3  # scores
ALIKE = 0.02  # scores that differ by less are the same
SAME_MAP = 0.5  # rank correlation with the map of shuffled weights, from which it does not depend on what was learnt

CAUTION = (
    "It shows where the computation takes values from; it is no proof of a cause, "
    "and says nothing about whether the mask is right."
)


def judge(found: Faithfulness) -> Verdict:
    """Sum the figures of a check up in a word."""
    if found.whole - found.blank < LEAST_FALL:
        return "untestable"
    if found.p > LIKELY or found.score <= 0:
        return "chance"
    return "strong" if found.score >= STRONG else "clear" if found.score >= CLEAR else "slight"


def in_words(found: Faithfulness) -> str:
    """What the map is and is not."""
    if found.verdict == "untestable":
        return (
            f"This map cannot be checked: without anything that may be removed, the probability of {found.structure} only goes "
            f"from {found.whole:.2f} to {found.blank:.2f}. {CAUTION}"
        )
    parts = found.interval
    spread = f", {_signed(parts[0])} to {_signed(parts[1])} over the parts of the region" if parts else ""
    low, high = found.chance
    figures = f"score {_signed(found.score)}{spread}; random maps {_signed(low)} to {_signed(high)}"
    if found.verdict == "chance":
        why = "It has the same value everywhere, and so" if found.flat else "It"
        told = [
            "This map does no better than chance",
            f"{why} does not tell which places the model needs for {found.structure} ({figures})",
        ]
    else:
        how_much = {"slight": "slightly", "clear": "clearly", "strong": "much"}[found.verdict]
        told = [
            f"The places this map marks matter {how_much} more to the model for {found.structure} than random ones ({figures})",
            f"Just pointing at the structure does {_against(found.score, found.nearness)}",
        ]
        if found.saliency is not None:
            told.append(f"Gradient saliency does {_against(found.score, found.saliency)}")
    return ". ".join((*told, _sanity(found.sanity), CAUTION))


def _sanity(correlation: float | None) -> str:
    if correlation is None:
        return "Whether it depends on what the model learnt was not checked"
    figure = f"(rank correlation {correlation:.2f})"
    if correlation >= SAME_MAP:
        return (
            f"A network with shuffled weights gives nearly the same map {figure}, so it shows the picture, or how the network is "
            "built, rather than what it learnt"
        )
    return f"A network with shuffled weights gives another map {figure}"


def _against(score: float, rival: float) -> str:
    if abs(rival - score) < ALIKE:
        return f"as well ({_signed(rival)})"
    return f"{'better' if rival > score else 'worse'} ({_signed(rival)})"


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")
