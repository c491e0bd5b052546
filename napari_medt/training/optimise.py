"""The parts of a training loop that do not depend on the data: loss, parameter groups, moving average, norm statistics."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from napari_medt.core import DeviceError, MedtError
from napari_medt.nets.layers import with_background
from napari_medt.zoo.devices import choose_device

Loss = Callable[[Tensor, Tensor], Tensor]


def seed_everything(seed: int) -> None:
    """Seed what draws without a generator of its own, such as the first weights of a network."""
    random.seed(seed)
    torch.manual_seed(seed)


def training_device(name: str = "auto") -> torch.device:
    """The device of that name, or for `"auto"` a CUDA device or the processor.

    Apple's GPU has no float64, in which the networks take the statistics of their batch norms when they learn from scratch.
    """
    if name == "auto" and not torch.cuda.is_available():
        return torch.device("cpu")
    chosen = choose_device(name)
    if chosen.type == "mps":
        raise DeviceError(
            "Apple's GPU cannot train a network from scratch, since it has no numbers of 64 bits", remedy="choose cpu"
        )
    return chosen


def dice_and_cross_entropy() -> Loss:
    """Soft Dice of the foreground classes over the batch plus cross-entropy, on logits `(n, k, h, w)` and classes `(n, h, w)`.

    Raises
    ------
    MedtError
        If MONAI is not installed.
    """
    try:
        from monai.losses.dice import DiceCELoss
    except ImportError as error:
        raise MedtError(
            f"Training needs MONAI, which cannot be imported here ({error})",
            remedy='install it with: pip install "napari-medt[train]"',
        ) from error

    loss = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
    return lambda logits, labels: cast("Tensor", loss(logits, labels[:, None]))


def net_loss(net: nn.Module, images: Tensor, labels: Tensor, criterion: Loss) -> Tensor:
    """Loss of one batch: the network's own where it has one, which adds its further outputs, else the criterion on its logits."""

    def of_classes(logits: Tensor, labels: Tensor) -> Tensor:
        return criterion(with_background(logits), labels)

    outputs = net(images)
    own = getattr(net, "loss", None)
    return cast("Tensor", own(outputs, labels, of_classes)) if own else of_classes(outputs, labels)


def parameter_groups(net: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Weights of convolutions with weight decay; position tables, gates, norms and biases without.

    Decay would pull gates to zero whatever the data say, because the batch norm behind them undoes their scale.
    """
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for parameter in net.parameters():
        if parameter.requires_grad:
            (decayed if parameter.ndim == 4 else free).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


def learning_rate_at(step: int, *, steps: int, peak: float, warmup: int) -> float:
    """Linear increase over `warmup` steps, then a cosine to a thousandth of the peak; `step` counts from 0."""
    rise = min(1.0, (step + 1) / max(1, warmup))
    fall = 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, steps))))
    return peak * rise * max(fall, 1e-3)


class MovingAverage:
    """Exponential moving average of a network's weights, with a short memory in the first steps."""

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.state = {name: p.detach().clone() for name, p in net.named_parameters()}

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        """Take in the present weights."""
        self.updates += 1
        keep = min(self.decay, self.updates / (self.updates + 10))
        for name, parameter in net.named_parameters():
            self.state[name].lerp_(parameter.detach(), 1 - keep)

    def network(self, net: nn.Module) -> nn.Module:
        """A copy of `net` with the averaged weights; its running statistics do not fit them yet."""
        averaged = copy.deepcopy(net)
        averaged.load_state_dict(self.state, strict=False)
        return averaged


@torch.no_grad()
def refresh_norms(net: nn.Module, images: Iterable[Tensor]) -> nn.Module:
    """Take the running statistics of all batch norms anew, as plain means over `images`; leaves `net` in evaluation mode.

    Averaged weights do not fit the statistics gathered on the way, and those of patch-wise norms move many times a step.
    """
    norms = [module for module in net.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    net.train()
    for batch in images:
        net(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return net.eval()


@contextmanager
def frozen_norms(net: nn.Module) -> Iterator[None]:
    """Train mode with all batch norms on their running statistics: for few images, whose own would be noise."""
    net.train()
    for module in net.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
    try:
        yield
    finally:
        net.eval()
