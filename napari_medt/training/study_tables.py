"""What a study found: one row an arm, as CSV, as Markdown and as a picture.

Of every held-out case, the score of an arm is the mean over the structures, and then over the seeds. So an interval says how
the mean would vary with other cases, not with other seeds; the lowest and the highest seed stand beside it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_medt.core import BadTrainingData
from napari_medt.io import atomic_write
from napari_medt.measure import paired_test, summarise
from napari_medt.training.evaluation import HELD_OUT, to_score
from napari_medt.training.study import Arm, Study

if TYPE_CHECKING:
    import pandas as pd

OUTCOME = "outcome.json"
SCORES, TABLE, REPORT, PICTURE = "scores.csv", "table.csv", "table.md", "comparison.png"


@dataclass(frozen=True)
class Row:
    """One arm.

    Attributes
    ----------
    dice, low, high
        Mean over the cases, and its bootstrap interval of 95 per cent.
    lowest_seed, highest_seed
        Means over the cases of single seeds.
    hd95, missed
        Mean over the structures that both masks have, of all cases and seeds; how often only one of the masks has it.
    difference, difference_low, difference_high, p
        Of Dice to the first arm, case by case, with its interval, and Wilcoxon's signed-rank test; none for the first arm.
    seconds_per_step, loading_share
        Mean over the seeds; share of the time that went by waiting for windows.
    """

    arm: str
    title: str
    architecture: str
    parameters: int
    steps: int
    dice: float
    low: float | None
    high: float | None
    lowest_seed: float
    highest_seed: float
    hd95: float | None
    missed: int
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    p: float | None
    seconds_per_step: float | None
    loading_share: float


@dataclass(frozen=True)
class Comparison:
    """What a study found so far.

    Attributes
    ----------
    folder
        Where the tables lie.
    rows
        One an arm that has finished runs, in the order of the study.
    seeds
        Those that all these arms have; no other enters the rows.
    cases
        Held-out images.
    unfinished
        Names of the runs that are still to be made.
    """

    folder: Path
    rows: tuple[Row, ...]
    seeds: tuple[int, ...]
    cases: int
    unfinished: tuple[str, ...]

    @property
    def report(self) -> Path:
        """The table for people; there is none without rows."""
        return self.folder / REPORT


def folder_of(out: Path, arm: Arm, seed: int) -> Path:
    """Of one run."""
    return out / f"{arm.name}-{seed}"


def is_finished(folder: Path) -> bool:
    """Whether a run has its model, which is written last."""
    return (folder / "model").exists()


def write_tables(plan: Study, out: Path) -> Comparison:
    """Compare what is finished, and write the tables and the picture; none before every arm that began has a seed in common.

    Raises
    ------
    BadTrainingData
        If arms were measured on different cases.
    """
    done = {(arm.name, seed) for arm in plan.arms for seed in plan.seeds if is_finished(folder_of(out, arm, seed))}
    unfinished = [f"{arm.name}-{seed}" for arm in plan.arms for seed in plan.seeds if (arm.name, seed) not in done]
    arms = [arm for arm in plan.arms if any(name == arm.name for name, _ in done)]
    seeds = [seed for seed in plan.seeds if all((arm.name, seed) in done for arm in arms)] if arms else []
    if not seeds:
        return Comparison(out, (), (), 0, tuple(unfinished))
    scores = _scores(out, arms, seeds)
    rows = _rows(out, arms, seeds, scores)
    found = Comparison(out, tuple(rows), tuple(seeds), scores["name"].nunique(), tuple(unfinished))
    atomic_write(out / SCORES, scores.to_csv(index=False).encode())
    atomic_write(out / TABLE, _as_csv(rows))
    atomic_write(out / REPORT, as_markdown(plan, found).encode())
    draw(plan, found, scores, out / PICTURE)
    return found


def _scores(out: Path, arms: Sequence[Arm], seeds: Sequence[int]) -> pd.DataFrame:
    """Scores of every arm, seed, case and structure."""
    import pandas as pd

    text = dict.fromkeys(("name", "group", "class"), str)
    parts, first = [], None
    for arm in arms:
        for seed in seeds:
            folder = folder_of(out, arm, seed)
            part = pd.read_csv(folder / HELD_OUT, dtype=text, keep_default_na=False)
            measured = part[["name", "class"]].to_numpy().tolist()
            first = first or measured
            if measured != first:
                raise BadTrainingData(
                    f"{folder.name} was measured on other images than {folder_of(out, arms[0], seeds[0]).name}",
                    remedy=f"remove {folder}, so that it is made again with the split of today",
                )
            parts.append(part.assign(arm=arm.name, seed=seed))
    return pd.concat(parts, ignore_index=True)


def _rows(out: Path, arms: Sequence[Arm], seeds: Sequence[int], scores: pd.DataFrame) -> list[Row]:
    by_run = scores.groupby(["arm", "seed", "name"])["dice"].mean()
    by_case = by_run.groupby(["arm", "name"]).mean()
    by_seed = by_run.groupby(["arm", "seed"]).mean()
    rows = []
    for arm in arms:
        values = by_case[arm.name].tolist()
        summary = summarise(values)
        test = paired_test(values, by_case[arms[0].name].tolist()) if arm is not arms[0] else None
        overall = to_score(scores[scores["arm"] == arm.name], "held out")
        outcomes = [json.loads((folder_of(out, arm, seed) / OUTCOME).read_bytes()) for seed in seeds]
        seconds = [each["seconds_per_step"] for each in outcomes if each["seconds_per_step"] is not None]
        rows.append(
            Row(
                arm=arm.name,
                title=arm.title or arm.name,
                architecture=arm.architecture,
                parameters=outcomes[0]["parameters"],
                steps=outcomes[0]["steps"],
                dice=float(by_case[arm.name].mean()),
                low=summary.low,
                high=summary.high,
                lowest_seed=float(by_seed[arm.name].min()),
                highest_seed=float(by_seed[arm.name].max()),
                hd95=overall.hd95,
                missed=overall.missed,
                difference=test.difference if test else None,
                difference_low=test.low if test else None,
                difference_high=test.high if test else None,
                p=test.wilcoxon_p if test else None,
                seconds_per_step=sum(seconds) / len(seconds) if seconds else None,
                loading_share=sum(each["loading_share"] for each in outcomes) / len(outcomes),
            )
        )
    return rows


def _as_csv(rows: Sequence[Row]) -> bytes:
    import pandas as pd

    text: str = pd.DataFrame([asdict(row) for row in rows]).to_csv(index=False)
    return text.encode()


def as_markdown(plan: Study, found: Comparison) -> str:
    """The table for people, with what it was made from and how it is to be read."""
    length = "mm" if plan.recipe.spacing else "px"
    base = found.rows[0].title
    head = ["", "Dice (95% interval)", "seeds", f"difference to {base}", "p", f"HD95, {length}", "missed", "parameters"]
    head += ["steps", "s a step", *plan.published]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for row in found.rows:
        papers = [scores.get(row.arm) for scores in plan.published.values()]
        cells = [
            row.title,
            f"{row.dice:.3f}{_interval(row.low, row.high)}",
            f"{row.lowest_seed:.3f} to {row.highest_seed:.3f}",
            ""
            if row.difference is None
            else f"{row.difference:+.3f}{_interval(row.difference_low, row.difference_high)}",
            "" if row.p is None else f"{row.p:.2g}",
            "" if row.hd95 is None else f"{row.hd95:.2f}",
            str(row.missed),
            f"{row.parameters:,}",
            f"{row.steps:,}",
            "" if row.seconds_per_step is None else f"{row.seconds_per_step:.2f}",
        ]
        lines.append(cells + ["" if score is None else f"{score:g}" for score in papers])
    several = f"seeds {', '.join(map(str, found.seeds))}" if len(found.seeds) > 1 else f"seed {found.seeds[0]} alone"
    notes = [
        f"{found.cases} held-out images of {plan.recipe.data.folder}; {plan.budget} an arm, {several}. The Dice of a case is "
        "the mean over its structures, then over the seeds; intervals are bootstraps over the cases, p is Wilcoxon's "
        "signed-rank test of the same cases against the first arm, not corrected for the number of arms. HD95 is the mean "
        "over structures that both masks have; *missed* counts those that only one of them has. Seconds are those of the "
        f"computer at hand. {'The last columns are what the papers give, in per cent, on their own data.' * bool(plan.published)}",
        *order_notes(plan, found.rows),
    ]
    if found.unfinished:
        notes.append(f"Not finished: {', '.join(found.unfinished)}.")
    parts = [
        f"**{plan.title}.** {plan.question}".strip(),
        "\n".join(f"| {' | '.join(line)} |" for line in lines),
        *notes,
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def order_notes(plan: Study, rows: Sequence[Row]) -> list[str]:
    """One sentence a published list: which pairs of arms stand the other way round here, by their mean Dice."""
    sentences = []
    for data, scores in plan.published.items():
        pairs = list(combinations([row for row in rows if row.arm in scores], 2))
        turned = []
        for one, other in pairs:
            low, high = (one, other) if scores[one.arm] < scores[other.arm] else (other, one)
            if scores[low.arm] != scores[high.arm] and low.dice >= high.dice:
                turned.append(f"{high.title} is not above {low.title}")
        if pairs:
            ending = f"is not the same: {'; '.join(turned)}" if turned else "is the same"
            sentences.append(f"The order on {data} {ending}.")
    return sentences


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" ({low:.3f} to {high:.3f})"


def draw(plan: Study, found: Comparison, scores: pd.DataFrame, picture: Path) -> None:
    """Draw means with their intervals and the single seeds to a PNG; nothing where Matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    rows = found.rows
    by_seed = scores.groupby(["arm", "seed", "name"])["dice"].mean().groupby(["arm", "seed"]).mean()
    figure = Figure(figsize=(7, 1.2 + 0.45 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        seeds: Any = by_seed[row.arm]
        axes.plot(seeds, [place + 0.18] * len(seeds), ".", color="grey", label="" if place else "one seed")
        if row.low is not None and row.high is not None:
            axes.plot([row.low, row.high], [place, place], color="black", label="" if place else "95% interval")
        axes.plot(row.dice, place, "o", color="black", label="" if place else "mean over cases")
    axes.set_yticks(range(len(rows)), [row.title for row in rows])
    axes.invert_yaxis()
    axes.set(xlabel=f"Dice, {found.cases} held-out images of {plan.recipe.data.folder}", title=plan.title)
    axes.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    atomic_write(picture, lambda file: figure.savefig(file, format="png", dpi=120))
