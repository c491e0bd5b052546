"""Whether a map of attention deserves belief: it should mark the places that the model needs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from napari_medt.attention.curves import Curves, draw_curves, passes_needed, ranked
from napari_medt.attention.orders import moved, nearness, saliency
from napari_medt.attention.shuffled import Again, Stage, compare_with_shuffled
from napari_medt.attention.trial import Baseline, Map, Trial, class_number
from napari_medt.attention.verdict import Verdict, in_words, judge
from napari_medt.core import AttentionMap, BadImage, BadModel, Cancel, Progress, Volume, silent
from napari_medt.engine.prepare import Scale
from napari_medt.engine.windows import Box
from napari_medt.measure import interval
from napari_medt.zoo.model import Model

Array = npt.NDArray[Any]

SCATTERED = 3  # random orders of single samples
SMOOTH = 1 / 64  # of the window's edge: width by which saliency is smoothed, since smooth maps do better for free
FLAT = 1e-6  # share of its largest value by which a map that says anything varies


@dataclass(frozen=True, eq=False)
class Faithfulness:
    """How well a map tells which places a model needs for a structure.

    Attributes
    ----------
    structure
        Its name.
    curves
        By name: `"map"`, `"nearness"`, and with captum `"saliency"` and `"smoothed saliency"`.
    random
        Of random maps, which are the map itself mirrored and shifted at random.
    scattered
        Of orders in which single samples are drawn at random.
    flat
        Whether the map has the same value everywhere.
    interval
        95 % bootstrap interval of the score over compact parts of the region; `None` of a region too small for parts. It says
        how even the score is, not whether it is better than chance.
    stages
        The comparison with shuffled weights; empty where it was not made.
    box
        The window that was looked at, on the model's grid.
    passes
        How many windows went through the network for the curves.
    """

    structure: str
    curves: dict[str, Curves]
    random: tuple[Curves, ...]
    scattered: tuple[Curves, ...]
    flat: bool
    interval: tuple[float, float] | None
    stages: tuple[Stage, ...]
    box: Box
    passes: int

    @property
    def score(self) -> float:
        """Area under the insertion curve less that under the deletion curve, in [-1, 1].

        It is how much likelier the structure is, on average, when the places the map marks are there than when they are
        missing. Of random maps it is about 0.
        """
        return self.curves["map"].score

    @property
    def chance(self) -> tuple[float, float]:
        """2.5th and 97.5th percentile of the scores of the random maps."""
        low, high = np.percentile([one.score for one in self.random], (2.5, 97.5))
        return float(low), float(high)

    @property
    def p(self) -> float:
        """Share of the random maps, and of the map itself among them, that do at least as well as the map."""
        as_good = sum(self.flat or one.score >= self.score for one in self.random)
        return (1 + as_good) / (1 + len(self.random))

    @property
    def nearness(self) -> float:
        """Score of a map that just points at the structure: what lies deepest in it first, then by distance."""
        return self.curves["nearness"].score

    @property
    def saliency(self) -> float | None:
        """Score of plain gradient saliency, as it is or slightly smoothed, whichever is better; `None` without captum."""
        return max((curves.score for name, curves in self.curves.items() if "saliency" in name), default=None)

    @property
    def sanity(self) -> float | None:
        """Size of the rank correlation with the map of the network with all weights shuffled; `None` if not compared."""
        return self.stages[-1].correlation if self.stages else None

    @property
    def whole(self) -> float:
        """Mean probability of the structure in the region."""
        return float(self.curves["map"].deletion[0].mean())

    @property
    def blank(self) -> float:
        """The same without all that may be removed."""
        return float(self.curves["map"].deletion[-1].mean())

    @property
    def verdict(self) -> Verdict:
        """In a word: `"untestable"`, `"chance"`, `"slight"`, `"clear"` or `"strong"`."""
        return judge(self)

    @property
    def sentence(self) -> str:
        """What the map is and is not, for its caption."""
        return in_words(self)

    def label(self, attention: AttentionMap) -> AttentionMap:
        """The map with the sentence in its caption."""
        return replace(attention, caption=f"{attention.caption} {self.sentence}".strip())


def check_faithfulness(
    model: Model,
    image: Volume | npt.ArrayLike,
    attention: Map,
    *,
    structure: int | str,
    region: npt.ArrayLike | None = None,
    removed: Literal["anywhere", "outside"] = "anywhere",
    baseline: Baseline = "blur",
    again: Again | None = None,
    scale: Scale | None = None,
    orders: int = 19,
    budget: int = 220,
    seed: int = 0,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> Faithfulness:
    """Check whether a model needs the places that a map marks.

    Places of one window are removed from the image, those with the highest values first (deletion), or brought back into an
    empty window (insertion), and the mean probability of the structure in the region is followed (Petsiuk et al. 2018). The
    same is done for random maps, for a map that just points at the structure, and for gradient saliency; and the map is made
    anew with shuffled weights (Adebayo et al. 2018).

    Parameters
    ----------
    model, image
        As for `predict`; a 2D model takes one slice.
    attention
        A map in its own geometry, or an array of the image's shape; high values mark places.
    structure
        Label value or name of a class other than the background.
    region
        Mask of the image's shape: where the structure is asked about. By default the point that the map was asked about with
        its direct neighbours; of other maps, the window of the image in which the model draws most of the structure, and there
        all that it draws.
    removed
        `"anywhere"`: places inside the region are removed too, so that a map that marks the structure itself does well;
        `"outside"`: only what surrounds it, so that the map is checked as one of context.
    baseline
        What stands where the image is removed: `"blur"`, the image blurred by an eighth of the window's edge, or `"mean"`, the
        mean value of each channel. Blurred places have the brightness of their surroundings and no borders; a plain patch is
        itself a thing with a border, which a network that looks for borders may draw.
    again
        Makes the same map for another model and image, for the check with shuffled weights. By default by `attention_maps`
        from the source, head and query that the map names; a plain array is not checked so.
    scale
        Of the intensities of the scan, if the image is a slice of one.
    orders
        Random maps. With fewer than 19 none can be told from chance at 5 %.
    budget
        Windows that go through the network for the curves, at most; more give more points on them. A search for the structure
        and the check with shuffled weights take some more.
    seed
        The same seed gives the same result.
    progress, cancel
        Told about and looked at before every batch of windows.

    Returns
    -------
    Faithfulness
        With a `sentence` for the caption.

    Raises
    ------
    BadImage
        If the image, the region or the map do not fit together, or the model finds no such structure.
    BadModel
        If the model has no such class.
    Cancelled
        If `cancel` was set.
    ValueError
        If the budget is too small for two points a curve.
    """
    report = progress or silent
    volume = image if isinstance(image, Volume) else Volume.from_array(image)
    number = class_number(model.card, structure)
    query = attention.query if isinstance(attention, AttentionMap) else None
    mask = None if region is None else np.asarray(region)
    trial = Trial.of(
        model,
        volume,
        structure=number,
        region=mask,
        query=query,
        baseline=baseline,
        scale=scale,
        progress=report,
        cancel=cancel,
    )
    removable = np.ones(trial.shape, bool) if removed == "anywhere" else ~trial.region
    if not removable.any():
        raise BadImage("The region fills the whole window, so there is nothing around it to remove")
    again = again or _by_name(attention, trial)
    generator = np.random.default_rng(seed)
    values = trial.sampled(attention)
    flat = bool(np.ptp(values[removable]) <= FLAT * np.abs(values).max())
    maps = {"map": values, "nearness": nearness(trial)}
    gradient = saliency(trial)
    if gradient is not None:
        widths = [max(1.0, edge * SMOOTH) for edge in model.card.window]
        maps |= {"saliency": gradient, "smoothed saliency": gaussian_filter(gradient, widths)}
    rivals = [moved(values, generator) for _ in range(orders)]
    rivals += [generator.random(trial.shape) for _ in range(SCATTERED)]
    ranks = [ranked(one, removable, generator) for one in (*maps.values(), *rivals)]
    steps = (budget - 2) // (2 * len(ranks))
    if steps < 2:
        raise ValueError(f"a budget of {budget} is too small; at least {passes_needed(len(ranks), 2)} are needed")
    drawn = draw_curves(trial, ranks, steps=steps, progress=report, cancel=cancel)
    curves = dict(zip(maps, drawn, strict=False))
    stages: tuple[Stage, ...] = ()
    if again is not None:
        stages = compare_with_shuffled(trial, again, seed=seed, progress=report, cancel=cancel)
    return Faithfulness(
        structure=model.card.classes[number],
        curves=curves,
        random=tuple(drawn[len(maps) : len(maps) + orders]),
        scattered=tuple(drawn[len(maps) + orders :]),
        flat=flat,
        interval=interval(curves["map"].scores, seed=seed),
        stages=stages,
        box=trial.box,
        passes=passes_needed(len(ranks), steps),
    )


def _by_name(attention: Map, trial: Trial) -> Again | None:
    """How to make a map again that `attention_maps` made; `None` of other maps."""
    from napari_medt.attention import attention_maps

    if not isinstance(attention, AttentionMap):
        return None
    named: AttentionMap = attention
    query: Any = None if named.query is None else trial.place(named.query)

    def again(model: Model, image: Volume) -> AttentionMap:
        found = attention_maps(model, image, named.source, query, head=named.head)
        return next(one for one in found if one.kind == named.kind)

    card, volume = trial.alone()
    try:
        again(Model(card, trial.model.net, trial.model.device), volume)
    except (BadModel, StopIteration):  # no source of this network, or no such map of it
        return None
    return again
