"""The gate between two versions of a model: what changed on held-out cases, and whether the new one is worse."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MEASURES = ("dice", "hd95", "surface_dice", "volume_difference")
ALL = ""  # stands for the mean over structures
ALONE = 0.02  # Dice that a single held-out case may fall by, as it has no interval

Scores = Mapping[tuple[str, str], float | None]
"""Of one case, by structure and measure."""


@dataclass(frozen=True)
class Change:
    """One measure of one structure, before and after.

    Attributes
    ----------
    structure
        Its name; empty for the mean of Dice over several structures.
    measure
        In `MEASURES`; of volumes the size of the error counts, whichever way it goes.
    before, after
        Means over the cases; infinite where one is, `None` where the measure does not apply.
    low, high
        Interval of the mean of after less before, 95 %; `None` of a single case.
    cases
        How many there are.
    """

    structure: str
    measure: str
    before: float | None
    after: float | None
    low: float | None
    high: float | None
    cases: int


@dataclass(frozen=True)
class Verdict:
    """Whether a version may take the place of another: `worse` blocks it, `why` says so, or what is not known.

    `unsure` is a version that falls, but not by more than chance may.
    """

    worse: bool
    why: str
    unsure: bool = False


def changes(before: Sequence[Scores], after: Sequence[Scores]) -> tuple[Change, ...]:
    """Compare two versions on the same cases, structure by structure.

    Examples
    --------
    >>> made = changes([{("cell", "dice"): 0.5}], [{("cell", "dice"): 0.75}])
    >>> made[0].before, made[0].after, made[0].low
    (0.5, 0.75, None)
    """
    if not before:
        return ()
    keys = list(before[0])
    structures = list(dict.fromkeys(structure for structure, _ in keys))
    made = [_change(key, [case[key] for case in before], [case[key] for case in after]) for key in keys]
    if len(structures) > 1:
        both = [[_mean(case, structures) for case in side] for side in (before, after)]
        made.append(_change((ALL, "dice"), *both))
    return tuple(made)


def judge(found: Sequence[Change]) -> Verdict:
    """Say whether the new version is worse: its Dice, of a structure or of all, falls by more than its interval explains."""
    dice = [change for change in found if change.measure == "dice"]
    cases = max((change.cases for change in dice), default=0)
    if not cases:
        return Verdict(
            False,
            "No case was held out, so nothing tells whether the new version is better on images it has not seen.",
        )
    worse = [change for change in dice if _is_worse(change)]
    if worse:
        words = "; ".join(_words(change) for change in worse)
        on = "the held-out case" if cases == 1 else f"{cases} held-out cases"
        return Verdict(True, f"The new version is worse on {on}: {words}.")
    if cases == 1:
        return Verdict(False, "Only one case was held out, which tells little; hold out more where you can.")
    unsure = [change for change in dice if _falls(change)]
    if unsure:
        words = "; ".join(_words(change) for change in unsure)
        why = f"On {cases} held-out cases {words}; they differ too much to tell whether that is chance."
        return Verdict(False, why, unsure=True)
    return Verdict(False, f"The new version is not worse on {cases} held-out cases.")


def _change(key: tuple[str, str], before: list[float | None], after: list[float | None]) -> Change:
    from napari_medt.measure import paired_test

    structure, measure = key
    if measure == "volume_difference":
        before, after = ([None if v is None else abs(v) for v in side] for side in (before, after))
    test = paired_test(after, before)
    return Change(structure, measure, _over(before), _over(after), test.low, test.high, len(before))


def _over(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def _mean(case: Scores, structures: Sequence[str]) -> float | None:
    return _over([case[structure, "dice"] for structure in structures])


def _is_worse(change: Change) -> bool:
    return _falls(change) if change.high is None else change.high < 0


def _falls(change: Change) -> bool:
    """Whether the mean falls by more than a single case may."""
    return change.before is not None and change.after is not None and change.after < change.before - ALONE


def _words(change: Change) -> str:
    assert change.before is not None
    assert change.after is not None
    what = f"Dice of {change.structure}" if change.structure else "the mean Dice"
    span = "" if change.low is None or change.high is None else f" (change {change.low:+.2f} to {change.high:+.2f})"
    return f"{what} falls from {change.before:.2f} to {change.after:.2f}{span}"
