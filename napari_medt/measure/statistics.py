"""What the scores of many cases say: means with bootstrap intervals, worst cases, and whether two models differ.

A score is a number, infinite (a distance to a mask that is missing), or `None` where it does not apply (a structure that
neither mask has, if so wished). Infinite scores stay in the mean, which then is infinite, and are counted; beside it stands
the mean of the finite ones. Scores that do not apply are counted and enter nothing.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import bootstrap, wilcoxon

from napari_medt.measure.surfels import Reals

Method = Literal["bca", "percentile"]
RESAMPLES = 9999
FEWEST = 6  # pairs that differ: with fewer, Wilcoxon's two-sided p cannot fall below 0.05, and resamples are too alike


@dataclass(frozen=True)
class Summary:
    """The scores of many cases.

    Attributes
    ----------
    cases, infinite, not_applicable
        How many there are, and of them how many are infinite or do not apply.
    mean, median
        Of all that apply, so infinite if one, or half of them, are; `None` if none applies.
    finite_mean
        Of the finite ones; the same as `mean` where all are finite.
    low, high
        Interval of `finite_mean`; `None` of fewer than two finite scores.
    """

    cases: int
    infinite: int
    not_applicable: int
    mean: float | None
    median: float | None
    finite_mean: float | None
    low: float | None
    high: float | None


def summarise(
    scores: Sequence[float | None], *, confidence: float = 0.95, method: Method = "bca", seed: int = 0
) -> Summary:
    """Sum up the scores of many cases.

    Parameters
    ----------
    scores
        One a case.
    confidence, method, seed
        As for `interval`.

    Examples
    --------
    >>> summary = summarise([1.0, 2.0, None, float("inf")])
    >>> summary.cases, summary.infinite, summary.not_applicable, summary.mean, summary.finite_mean
    (4, 1, 1, inf, 1.5)
    """
    applicable = np.array([score for score in scores if score is not None], np.float64)
    finite = applicable[np.isfinite(applicable)]
    low, high = interval(finite, confidence=confidence, method=method, seed=seed) or (None, None)
    return Summary(
        cases=len(scores),
        infinite=len(applicable) - len(finite),
        not_applicable=len(scores) - len(applicable),
        mean=float(applicable.mean()) if applicable.size else None,
        median=_median(applicable),
        finite_mean=float(finite.mean()) if finite.size else None,
        low=low,
        high=high,
    )


def _median(values: Reals) -> float | None:
    """Median that a single infinite value in the middle makes infinite and not NaN."""
    if not values.size:
        return None
    low, high = np.sort(values)[[(len(values) - 1) // 2, len(values) // 2]]
    return float(low) if low == high else float((low + high) / 2)


def interval(
    values: Sequence[float] | Reals, *, confidence: float = 0.95, method: Method = "bca", seed: int = 0
) -> tuple[float, float] | None:
    """Bootstrap interval of the mean (Efron 1979), cases drawn anew with replacement.

    Parameters
    ----------
    values
        Finite.
    confidence
        In (0, 1).
    method
        `"bca"`, corrected for bias and acceleration (Efron 1987), or `"percentile"`. Where the corrections cannot be
        computed, because nearly all values are equal, the percentiles are taken.
    seed
        The same seed gives the same interval.

    Returns
    -------
    tuple of float
        Lower and upper end; `None` of fewer than two values.

    Examples
    --------
    >>> interval([0.5, 0.5]), interval([0.5])
    ((0.5, 0.5), None)
    """
    data = np.asarray(values, np.float64)
    if data.size < 2:
        return None
    if (data == data[0]).all():
        return float(data[0]), float(data[0])
    for way in dict.fromkeys((method, "percentile")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of degenerate data, which are seen by the result
            found = bootstrap(
                (data,),
                np.mean,
                n_resamples=RESAMPLES,
                batch=max(1, 2**22 // data.size),
                confidence_level=confidence,
                method="BCa" if way == "bca" else "percentile",
                random_state=np.random.default_rng(seed),
            ).confidence_interval
        if math.isfinite(found.low) and math.isfinite(found.high):
            break
    return float(found.low), float(found.high)


@dataclass(frozen=True)
class PairedTest:
    """Whether two models' scores of the same cases differ.

    Attributes
    ----------
    pairs, ties, left_out
        Cases with both scores, those of them where both are equal (also: both infinite), and cases left out because one of
        the scores does not apply.
    difference
        Mean of first less second, over pairs that are not infinite; `None` without any.
    low, high
        Bootstrap interval of `difference`.
    wilcoxon_p
        Two-sided p of Wilcoxon's signed-rank test, ties left out as Wilcoxon did; an infinite score ranks as the largest
        difference. `None` with fewer than six pairs that differ.
    bootstrap_p
        Two-sided p of the mean difference, from resamples of the differences moved to mean 0; `None` with fewer than six
        pairs that differ, or where one is infinite in one model only.
    notes
        Sentences on what was left out, and why.
    """

    pairs: int
    ties: int
    left_out: int
    difference: float | None
    low: float | None
    high: float | None
    wilcoxon_p: float | None
    bootstrap_p: float | None
    notes: tuple[str, ...] = ()


def paired_test(
    first: Sequence[float | None],
    second: Sequence[float | None],
    *,
    confidence: float = 0.95,
    method: Method = "bca",
    seed: int = 0,
) -> PairedTest:
    """Compare two models case by case.

    Parameters
    ----------
    first, second
        Scores of the same cases in the same order.
    confidence, method, seed
        As for `interval`.

    Raises
    ------
    ValueError
        If there are not as many of one as of the other.

    Examples
    --------
    >>> test = paired_test([0.9, 0.8, 0.7, 0.9, 0.8, 0.6], [0.8, 0.7, 0.5, 0.6, 0.4, 0.1])
    >>> test.pairs, test.ties, round(test.difference, 3), test.wilcoxon_p
    (6, 0, 0.267, 0.03125)
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} scores are not of the same cases")
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    differences = np.array([0.0 if a == b else a - b for a, b in pairs], np.float64)
    uneven = differences[differences != 0]
    finite = differences[np.isfinite(differences)]
    infinite, enough = len(differences) - len(finite), len(uneven) >= FEWEST
    notes = []
    if len(pairs) < len(first):
        notes.append(f"{len(first) - len(pairs)} of {len(first)} cases are left out, as a score does not apply")
    if not enough:
        notes.append(f"Only {len(uneven)} pairs differ, and a test needs at least {FEWEST}")
    if infinite:
        notes.append(f"{infinite} pairs are infinite in one model only: they are in the ranks and not in the mean")
    low, high = interval(finite, confidence=confidence, method=method, seed=seed) or (None, None)
    return PairedTest(
        pairs=len(pairs),
        ties=len(differences) - len(uneven),
        left_out=len(first) - len(pairs),
        difference=float(finite.mean()) if finite.size else None,
        low=low,
        high=high,
        wilcoxon_p=_signed_rank(uneven) if enough else None,
        bootstrap_p=_p_of_mean(finite, seed) if enough and not infinite else None,
        notes=tuple(notes),
    )


def _signed_rank(differences: Reals) -> float:
    finite = np.abs(differences[np.isfinite(differences)])
    largest = 2 * finite.max() + 1 if finite.size else 1.0
    # Differences that are equal but for rounding share a rank.
    ranked = np.round(np.clip(differences, -largest, largest), 12)
    return float(wilcoxon(ranked[ranked != 0]).pvalue) if ranked.any() else 1.0


def _p_of_mean(differences: Reals, seed: int) -> float:
    """Share of resamples with mean 0 whose mean is as far from 0 as the one seen (Efron and Tibshirani 1993, 16.4)."""
    generator = np.random.default_rng(seed)
    mean = differences.mean()
    centred = differences - mean
    as_far, left = 0, RESAMPLES
    most = max(1, 2**22 // differences.size)
    while left:
        drawn = min(left, most)
        means = generator.choice(centred, (drawn, differences.size)).mean(axis=1)
        as_far += int(np.count_nonzero(np.abs(means) >= abs(mean) * (1 - 1e-12)))
        left -= drawn
    return (as_far + 1) / (RESAMPLES + 1)
