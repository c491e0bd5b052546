"""Whether a map depends on what the network learnt: the same map of the network with its weights shuffled.

After Adebayo et al., *Sanity Checks for Saliency Maps*, NeurIPS 2018, arXiv:1810.03292, who draw the weights anew layer by
layer from the output towards the input. Here those of each layer are shuffled among themselves, so that activations stay in
the range that stored means and deviations expect, and the layers go in quarters, so that the time is bounded.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import ConstantInputWarning, spearmanr
from torch import nn

from napari_medt.attention.trial import Map, Trial
from napari_medt.core import AttentionMap, Cancel, Progress, Volume
from napari_medt.zoo.model import Model

Array = npt.NDArray[Any]
Again = Callable[[Model, Volume], Map]
QUARTERS = (0.25, 0.5, 0.75, 1.0)
REPEATS = 3  # of the last stage, which decides


@dataclass(frozen=True)
class Stage:
    """One step of the check.

    Attributes
    ----------
    share
        Of the layers, from the output on, whose weights are shuffled.
    correlation
        Size of Spearman's rank correlation with the map of the trained network, a mean over repetitions; 0 if the map has the
        same value everywhere.
    """

    share: float
    correlation: float


def compare_with_shuffled(
    trial: Trial, again: Again, *, seed: int, progress: Progress, cancel: Cancel | None
) -> tuple[Stage, ...]:
    """The map of the window again, of the trained network and of ones with more and more weights shuffled."""
    card, volume = trial.alone()
    layers = _layers_from_output(trial)
    jobs = [(share, repeat) for share in QUARTERS for repeat in range(REPEATS if share == 1 else 1)]
    device = trial.model.device
    learnt = _sampled(trial, again(Model(card, trial.model.net, device), volume))
    found: dict[float, list[float]] = {}
    for done, (share, repeat) in enumerate(jobs):
        if cancel is not None:
            cancel.check()
        progress(done, len(jobs), "Comparing with shuffled weights")
        net = copy.deepcopy(trial.model.net)
        shuffle(net, layers[: max(1, round(share * len(layers)))], seed=seed + repeat)
        other = _sampled(trial, again(Model(card, net, device), volume))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConstantInputWarning)
            correlation = float(spearmanr(learnt, other, axis=None).statistic)
        found.setdefault(share, []).append(abs(correlation) if np.isfinite(correlation) else 0.0)
    progress(len(jobs), len(jobs), "Compared with shuffled weights")
    return tuple(Stage(share, float(np.mean(values))) for share, values in found.items())


@torch.no_grad()
def shuffle(net: nn.Module, layers: list[str], *, seed: int) -> None:
    """Shuffle the weights of some layers in place, each tensor's values among themselves."""
    generator = torch.Generator().manual_seed(seed)
    modules = dict(net.named_modules())
    for name in layers:
        for weights in modules[name].parameters(recurse=False):
            order = torch.randperm(weights.numel(), generator=generator).to(weights.device)
            weights.copy_(weights.flatten()[order].view_as(weights))


def _layers_from_output(trial: Trial) -> list[str]:
    """Names of the modules with weights of their own, the last to run first.

    One whose weights are used without its being called, as where a norm is folded into a convolution, ran when the module
    did that it is a part of.
    """
    began: dict[nn.Module, int] = {}

    def note(module: nn.Module, _: object) -> None:
        began.setdefault(module, len(began))

    modules = dict(trial.model.net.named_modules())
    handles = [module.register_forward_pre_hook(note) for module in modules.values()]
    try:
        with torch.inference_mode():
            trial.differentiable(trial.kept[None])
    finally:
        for handle in handles:
            handle.remove()

    def when(name: str) -> int:
        while modules[name] not in began:
            name = name.rpartition(".")[0]
        return began[modules[name]]

    owners = [name for name, module in modules.items() if next(module.parameters(recurse=False), None) is not None]
    return sorted(owners, key=when)[::-1]


def _sampled(trial: Trial, found: Map) -> Array:
    """A map of the window alone on the window's grid."""
    if not isinstance(found, AttentionMap):
        found = AttentionMap(np.asarray(found), trial.geometry, source="", kind="")
    return trial.sampled(found)
