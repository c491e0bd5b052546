"""Deletion and insertion curves: what a model still says while places are taken away, or come back, in some order.

Petsiuk, Das, Saenko, *RISE: Randomized Input Sampling for Explanation of Black-box Models*, BMVC 2018, arXiv:1806.07421.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.integrate import trapezoid

from napari_medt.attention.trial import Trial
from napari_medt.core import Cancel, Progress
from napari_medt.engine.running import BATCH
from napari_medt.engine.windows import pad_to_window
from napari_medt.zoo.model import Model

Array = npt.NDArray[Any]
MOST_TOGETHER = 64


@dataclass(frozen=True, eq=False)
class Curves:
    """What the model says about each part of the region while places go, or come back, in one order.

    Attributes
    ----------
    fractions
        `(steps,)` from 0 to 1: share of the places that may be removed.
    deletion, insertion
        `(steps, parts)` mean probability when the first places are removed from the image, or alone are left of it.
    """

    fractions: Array
    deletion: Array
    insertion: Array

    @property
    def scores(self) -> Array:
        """Area under the insertion curve less that under the deletion curve, part by part, in [-1, 1]."""
        return np.asarray(trapezoid(self.insertion - self.deletion, self.fractions, axis=0))

    @property
    def score(self) -> float:
        """Mean over the parts: how much likelier the structure is with the first places than without them."""
        return float(self.scores.mean())


def passes_needed(orders: int, steps: int) -> int:
    """Windows that go through the network for the curves of some orders, each with `steps` points between its ends."""
    return 2 + 2 * steps * orders


def ranked(values: Array, removable: Array, generator: np.random.Generator) -> Array:
    """The rank of each place, the highest value 0, ties at random; float32, -1 where nothing may be removed."""
    places = np.flatnonzero(removable)
    order = np.lexsort((generator.random(len(places)), -values.ravel()[places]))
    ranks = np.full(values.size, -1, np.float32)
    ranks[places[order]] = np.arange(len(places))
    return ranks.reshape(values.shape)


def _batch(model: Model) -> int:
    """Windows in one pass: as many samples as `predict` takes, so many more of small windows."""
    most = BATCH.get(model.device.type, BATCH["cpu"]) * 128**2 // math.prod(model.card.window)
    return min(max(1, most), MOST_TOGETHER)


def draw_curves(
    trial: Trial, ranks: Sequence[Array], *, steps: int, progress: Progress, cancel: Cancel | None
) -> list[Curves]:
    """Curves of several orders.

    Parameters
    ----------
    trial
        What is asked.
    ranks
        Of each order, `(*trial.shape)` as of `ranked`; all have the same places that may be removed.
    steps
        Points between the ends, at `(i / (steps + 1)) ** 2`: close to the first places, where curves bend most.
    progress, cancel
        Told and looked at batch by batch.
    """
    count = int((ranks[0] >= 0).sum())
    fractions = (np.arange(steps + 2) / (steps + 1)) ** 2
    limits = [max(1, round(fraction * count)) for fraction in fractions[1:-1]]
    jobs = [
        (-1, 0, True),
        (-1, count, True),
    ]  # the image as it is, and without all that may be removed; then the points
    jobs += [(order, limit, deleting) for order in range(len(ranks)) for limit in limits for deleting in (True, False)]
    padded = torch.from_numpy(pad_to_window(np.stack(ranks), trial.model.card.window)).to(trial.model.device)
    batch = _batch(trial.model)
    answers = []
    for start in range(0, len(jobs), batch):
        if cancel is not None:
            cancel.check()
        progress(start, len(jobs), "Checking the map")
        removed = []
        for order, limit, deleting in jobs[start : start + batch]:
            rank = padded[order]
            removed.append((rank >= 0) & ((rank < limit) if deleting else (rank >= limit)))
        answers.append(trial.answers(torch.stack(removed)))
    progress(len(jobs), len(jobs), "The map is checked")
    found = np.concatenate(answers)
    whole, none = found[:1], found[1:2]
    points = found[2:].reshape(len(ranks), steps, 2, -1)
    return [
        Curves(
            fractions,
            deletion=np.concatenate((whole, one[:, 0], none)),
            insertion=np.concatenate((none, one[:, 1], whole)),
        )
        for one in points
    ]
