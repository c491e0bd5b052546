"""Orders that a map has to stand up to: random maps, nearness, and plain gradient saliency."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt

from napari_medt.attention.trial import Trial

Array = npt.NDArray[Any]


def moved(values: Array, generator: np.random.Generator) -> Array:
    """The same map at a random place: mirrored along random axes, and shifted, what leaves on one side enters on the other.

    It is as smooth, as coarse and as uneven as the map itself; only where its values lie is left to chance.
    """
    axes = tuple(range(values.ndim))
    mirrored = np.flip(values, tuple(axis for axis in axes if generator.random() < 0.5))
    return np.roll(mirrored, [int(generator.integers(size)) for size in values.shape], axes)


def nearness(trial: Trial) -> Array:
    """How near each place is to the structure: what lies deepest in it first, then outwards, in the unit of the image."""
    spacing = trial.geometry.spacing
    outside = distance_transform_edt(~trial.region, spacing)
    inside = np.zeros_like(outside) if trial.region.all() else distance_transform_edt(trial.region, spacing)
    return np.asarray(inside - outside)


def saliency(trial: Trial) -> Array | None:
    """Size of the gradient of the mean probability at each place, the largest over channels; `None` without captum.

    Simonyan, Vedaldi, Zisserman, *Deep Inside Convolutional Networks*, 2013, arXiv:1312.6034.
    """
    if find_spec("captum") is None:
        return None
    from captum.attr import Saliency

    window = trial.kept[None].clone().requires_grad_()
    found = Saliency(trial.differentiable).attribute(window)[0].detach().amax(0)
    inside: Array = found[trial.inside].cpu().double().numpy()
    return inside
