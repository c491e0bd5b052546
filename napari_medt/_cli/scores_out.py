"""Scores as a table for people, as CSV, one row a case and structure, and as JSON with everything."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from napari_medt._cli.scoring import Evaluation, Wishes
from napari_medt.measure import METRICS, Metric, PairedTest, Summary, paired_test, summarise

ALL = "mean of all"
FEW = 10  # cases, below which an interval says little


# ---------------------------------------------------------------------------------------------------------- for people


def as_table(found: Evaluation, wishes: Wishes) -> Table:
    """Mean, interval and worst case of each structure and measure; of a single case its scores."""
    several = len(found.cases) > 1
    headings = ["Structure", "Measure", "Mean" if several else "Score"]
    headings += ["95% interval", "Worst", "Case", "Cases"] if several else []
    table = _empty_table(headings)
    for of in rows_of(found):
        for number, name in enumerate(wishes.metrics):
            metric = METRICS[name]
            if of == ALL and metric.kind == "volume":
                continue
            scores = _scores(found, of, name)
            summary = summarise(scores)
            row = [of if not number else "", _title(metric, found), _mean(summary, metric)]
            if several:
                worst = _worst(scores, found.cases, metric)
                row += [_interval(summary, metric), *worst, _counts(summary)]
            table.add_row(*map(escape, row), end_section=number == len(wishes.metrics) - 1)
    return table


def _empty_table(headings: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, no_wrap=heading in ("Mean", "Difference", "95% interval", "Cases"))
    return table


def rows_of(found: Evaluation) -> list[str]:
    """The structures, and their mean if there are several."""
    return [*found.classes, ALL] if len(found.classes) > 1 else list(found.classes)


def _scores(found: Evaluation, of: str, metric: str) -> list[float | None]:
    """Scores of one structure, or of each case the mean over those that apply."""
    if of != ALL:
        return found.column(of, metric)
    columns = zip(*(found.column(one, metric) for one in found.classes), strict=True)
    kept = [[score for score in case if score is not None] for case in columns]
    return [sum(scores) / len(scores) if scores else None for scores in kept]


def _title(metric: Metric, found: Evaluation) -> str:
    unit = metric.unit(found.units, found.ndim)
    return f"{metric.title}, {unit}" if unit else metric.title


def _text(value: float | None, metric: Metric) -> str:
    if value is None:
        return "n/a"
    if math.isinf(value):
        return "∞"
    return f"{value:.3f}" if metric.kind == "share" else f"{value:.4g}"


def _mean(summary: Summary, metric: Metric) -> str:
    text = _text(summary.mean, metric)
    if summary.infinite and summary.finite_mean is not None:
        text += f" ({_text(summary.finite_mean, metric)})"
    return text


def _interval(summary: Summary, metric: Metric) -> str:
    if summary.low is None:
        return ""
    return f"{_text(summary.low, metric)} to {_text(summary.high, metric)}"


def _worst(scores: Sequence[float | None], cases: Sequence[str], metric: Metric) -> tuple[str, str]:
    known = [(score, case) for score, case in zip(scores, cases, strict=True) if score is not None]
    if not known:
        return "", ""
    score, case = max(known, key=lambda pair: metric.badness(pair[0]))
    return _text(score, metric), case


def _counts(summary: Summary) -> str:
    parts = [f"{summary.infinite} ∞"] * bool(summary.infinite)
    parts += [f"{summary.not_applicable} n/a"] * bool(summary.not_applicable)
    return f"{summary.cases} ({', '.join(parts)})" if parts else str(summary.cases)


def paired_table(first: Evaluation, second: Evaluation, wishes: Wishes) -> Table:
    """Differences, first less second, and whether they may be chance."""
    headings = ["Structure", "Measure", "Difference", "95% interval", "Pairs", "Ties", "Wilcoxon p", "Bootstrap p"]
    table = _empty_table(headings)
    for of, name, test in paired_tests(first, second, wishes):
        metric = METRICS[name]
        span = "" if test.low is None else f"{_text(test.low, metric)} to {_text(test.high, metric)}"
        chances = [f"{p:.3g}" if p is not None else "none" for p in (test.wilcoxon_p, test.bootstrap_p)]
        row = [
            of,
            _title(metric, first),
            _text(test.difference, metric),
            span,
            str(test.pairs),
            str(test.ties),
            *chances,
        ]
        table.add_row(*map(escape, row))
    return table


def paired_tests(first: Evaluation, second: Evaluation, wishes: Wishes) -> list[tuple[str, str, PairedTest]]:
    """Structure, measure and test; a structure that only one of the two has is left to the tables."""
    common = [of for of in first.classes if of in second.classes]
    return [
        (of, name, paired_test(first.column(of, name), second.column(of, name)))
        for of in common
        for name in wishes.metrics
    ]


def closing_notes(found: Evaluation, wishes: Wishes, *, other: Evaluation | None = None) -> list[str]:
    """What a reader must know to understand the table."""
    units = found.units if found.units != "px" else "pixels, as the files give no unit"
    lines = [f"{METRICS[name].title}: {METRICS[name].meaning}" for name in wishes.metrics]
    if any(name.startswith("surface_dice") for name in wishes.metrics):
        lines.append(f"Tolerance of the surface Dice: {wishes.tolerance:g} {found.units}")
    empty = "1 and 0" if wishes.both_empty == "agree" else "no score (n/a), and left out of the mean"
    if other is not None:
        lines.append(
            "No p is given where fewer than six pairs differ, nor one of the mean where a score is infinite in one."
        )
    lines.append(
        f"Lengths in {units}. Where neither mask has a structure, overlaps and distances are {empty}; where only one has it, "
        "0 and infinite."
    )
    if len(found.cases) > 1:
        lines.append(
            "An infinite score makes the mean infinite; the mean in brackets, and the interval, are of the finite ones."
        )
    if 1 < len(found.cases) < FEW:
        lines.append(f"Intervals of {len(found.cases)} cases say little.")
    return lines + [f"Note: {note}" for note in found.notes]


# ----------------------------------------------------------------------------------------------------------- for files


def column_name(metric: Metric, found: Evaluation) -> str:
    """Name of a measure with its unit, such as `hd95_mm`."""
    unit = metric.unit(found.units, found.ndim)
    return f"{metric.name}_{unit}" if unit else metric.name


def write_csv(found: Evaluation, wishes: Wishes, path: Path) -> None:
    """Write one row a case and structure; infinite is `inf`, what does not apply is empty."""
    from napari_medt.io import atomic_write

    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case", "structure", *(column_name(METRICS[name], found) for name in wishes.metrics)])
    for case in found.cases:
        for of in found.classes:
            scores = found.scores[case, of]
            values = [scores[name] for name in wishes.metrics]
            writer.writerow([case, of, *("" if value is None else repr(value) for value in values)])
    atomic_write(path, text.getvalue().encode())


def write_json(found: Evaluation, wishes: Wishes, path: Path, *, other: Evaluation | None = None) -> None:
    """Write settings, summaries and scores; infinite is the text `"inf"`, what does not apply is null."""
    from napari_medt.io import atomic_write

    whole: dict[str, Any] = {
        "settings": {
            "tolerance": wishes.tolerance,
            "units": found.units,
            "both_empty": wishes.both_empty,
            "instances": wishes.objects,
            "resampled": wishes.resample,
            "interval": "95%, bootstrap of the mean over cases, BCa, 9999 resamples, seed 0",
        },
        "metrics": {
            name: {
                "title": METRICS[name].title,
                "unit": METRICS[name].unit(found.units, found.ndim),
                "best": METRICS[name].best,
                "meaning": METRICS[name].meaning,
            }
            for name in wishes.metrics
        },
        "summary": {
            of: {name: asdict(summarise(_scores(found, of, name))) for name in wishes.metrics} for of in rows_of(found)
        },
        "cases": [
            {"case": case, "structure": of, **found.scores[case, of]} for case in found.cases for of in found.classes
        ],
        "notes": list(found.notes),
    }
    if other is not None:
        whole["against"] = [
            {"structure": of, "metric": name, **asdict(test)} for of, name, test in paired_tests(found, other, wishes)
        ]
    atomic_write(path, (json.dumps(_plain(whole), indent=2, allow_nan=False) + "\n").encode())


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, float) and math.isinf(value) else value
