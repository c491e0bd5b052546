"""The parts of a training loop that do not depend on the data: loss, parameter groups, moving average, norm statistics."""

from __future__ import annotations

import copy
import math
import os
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.optim.swa_utils import get_ema_multi_avg_fn

from napari_medt.core import DeviceError, MedtError
from napari_medt.nets.layers import with_background
from napari_medt.zoo.devices import choose_device

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from napari_medt.training.recipe import Optimisation

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


def launch(device: str = "auto", *, processes: int = 1) -> Fabric:
    """Fabric on a device, with its processes started: bfloat16 on a GPU that has it, single precision elsewhere.

    Under `torchrun`, its processes are taken; otherwise `processes` on this computer are started.

    Raises
    ------
    DeviceError
        If there is no such device, or it cannot train.
    MedtError
        If Lightning Fabric is not installed.
    """
    try:
        from lightning_fabric import Fabric
    except ImportError as error:
        raise MedtError(
            f"Training needs Lightning Fabric, which cannot be imported here ({error})",
            remedy='install it with: pip install "napari-medt[train]"',
        ) from error
    chosen = training_device(device)
    shared = int(os.environ.get("WORLD_SIZE", "1")) > 1
    # torchrun says how many there are here; the processes that Fabric starts itself are not told
    count = int(os.environ.get("LOCAL_WORLD_SIZE", processes)) if shared else processes
    fabric = Fabric(
        accelerator=chosen.type,
        devices=[chosen.index] if count == 1 and chosen.index is not None else count,
        num_nodes=int(os.environ["WORLD_SIZE"]) // count if shared else 1,
        strategy="ddp" if shared or count > 1 else "auto",
        precision="bf16-mixed" if chosen.type == "cuda" and torch.cuda.is_bf16_supported() else "32-true",
    )
    fabric.launch()
    return fabric


def dice_and_cross_entropy(*, overlapping: bool = False, background: float = 1.0) -> Loss:
    """Soft Dice of the foreground classes over the batch plus cross-entropy, on logits `(n, k, *size)` and classes `(n, *size)`.

    Parameters
    ----------
    overlapping
        Whether a place can be of several classes: labels are then `(n, k, *size)`, each logit stands for itself, and the
        cross-entropy is the binary one.
    background
        Weight of the background in the cross-entropy of classes that exclude each other, where each structure has 1. A network
        that needs many steps may otherwise see nothing but background for hundreds of them where structures are small.

    Notes
    -----
    Where several processes share a batch, each computes the loss of the whole batch, so that their mean gradient is that of
    one process: Dice over a batch is not the mean of Dice over its parts.

    Raises
    ------
    MedtError
        If MONAI is not installed.
    """
    try:
        from monai.losses.dice import DiceLoss
    except ImportError as error:
        raise MedtError(
            f"Training needs MONAI, which cannot be imported here ({error})",
            remedy='install it with: pip install "napari-medt[train]"',
        ) from error

    if overlapping:
        dice = DiceLoss(sigmoid=True, batch=True)

        def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
            wanted = labels.to(logits.dtype)
            return cast("Tensor", dice(logits, wanted) + F.binary_cross_entropy_with_logits(logits, wanted))
    else:
        dice = DiceLoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)

        def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
            weight = None if background == 1 else logits.new_tensor([background] + [1.0] * (logits.shape[1] - 1))
            return cast("Tensor", dice(logits, labels[:, None]) + F.cross_entropy(logits, labels, weight=weight))

    return lambda logits, labels: loss_of(whole_batch(logits.float()), whole_batch(labels))


def whole_batch(part: Tensor) -> Tensor:
    """What all processes of a training hold of a batch, joined; alone, the part itself."""
    alone = not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1
    return part if alone else cast("Tensor", _Joined.apply(part.contiguous()))  # type: ignore[no-untyped-call]


class _Joined(torch.autograd.Function):
    """All parts of a batch, of which each process knows the gradient of its own.

    Gradients of processes are averaged, and all compute the same loss of the whole, so that of a part counts once for each.
    """

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        parts = [torch.empty_like(part) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, part)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        count = distributed.get_world_size()
        return gradients[0].chunk(count)[distributed.get_rank()] * count


def forward(net: nn.Module, images: Tensor, positions: Tensor | None = None) -> Any:
    """What a network makes of windows `(n, c, *window)`, told their positions if it takes them."""
    return net(images, positions) if getattr(net, "takes_position", False) else net(images)


def net_loss(
    net: nn.Module, images: Tensor, labels: Tensor, criterion: Loss, *, positions: Tensor | None = None
) -> Tensor:
    """Loss of one batch: the network's own where it has one, which adds its further outputs, else the criterion on its logits."""

    def of_classes(logits: Tensor, labels: Tensor) -> Tensor:
        return criterion(with_background(logits) if labels.ndim < logits.ndim else logits, labels)

    outputs = forward(net, images, positions)
    own = getattr(net, "loss", None)
    return cast("Tensor", own(outputs, labels, of_classes)) if own else of_classes(outputs, labels)


def make_optimiser(net: nn.Module, plan: Optimisation) -> torch.optim.Optimizer:
    """AdamW, or gradient descent with Nesterov momentum 0.99, as a recipe says."""
    groups = parameter_groups(net, plan.weight_decay)
    if plan.method == "sgd":
        return torch.optim.SGD(groups, lr=plan.learning_rate, momentum=0.99, nesterov=True)
    return torch.optim.AdamW(groups, lr=plan.learning_rate)


def parameter_groups(net: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Weights of convolutions and matrices with weight decay; position tables, tokens, gates, norms and biases without.

    Decay would pull gates to zero whatever the data say, because the batch norm behind them undoes their scale.
    """
    decayed = {m.weight for m in net.modules() if isinstance(m, (_ConvNd, nn.Linear))}
    learnt = [p for p in net.parameters() if p.requires_grad]
    return [
        {"params": [p for p in learnt if p in decayed], "weight_decay": weight_decay},
        {"params": [p for p in learnt if p not in decayed], "weight_decay": 0.0},
    ]


def learning_rate_at(step: int, *, steps: int, peak: float, warmup: int, schedule: str = "cosine") -> float:
    """Linear increase over `warmup` steps, then a cosine, or the power 0.9 of what is left, to a thousandth of the peak.

    `step` counts from 0.
    """
    rise = min(1.0, (step + 1) / max(1, warmup))
    done = min(1.0, step / max(1, steps))
    fall = 0.5 * (1 + math.cos(math.pi * done)) if schedule == "cosine" else (1 - done) ** 0.9
    return peak * rise * max(fall, 1e-3)


def background_at(step: int, *, steps: int, start: float, rises: float) -> float:
    """Weight of the background in the cross-entropy: it rises from `start` to 1, by the same factor a step.

    `rises` is the share of the steps in which it does, 0 for not at all; `step` counts from 0. A low weight lets a network see
    small structures early, and makes it mark too much if it stays.
    """
    return start ** (1 - min(1.0, step / (rises * steps))) if rises else start


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
        present = dict(net.named_parameters())
        # All at once: on a GPU, one by one takes longer than the step of a small network.
        mix = get_ema_multi_avg_fn(keep)  # type: ignore[no-untyped-call]
        mix(list(self.state.values()), [present[name] for name in self.state], 0)

    def network(self, net: nn.Module) -> nn.Module:
        """A copy of `net` with the averaged weights; its running statistics do not fit them yet."""
        averaged = copy.deepcopy(net)
        averaged.load_state_dict(self.state, strict=False)
        return averaged


@torch.no_grad()
def refresh_norms(net: nn.Module, windows: Iterable[tuple[Tensor, Tensor | None]]) -> nn.Module:
    """Take the running statistics of all batch norms anew, as plain means over batches of images and their positions.

    The network is left in evaluation mode, and untouched if it has no batch norms.

    Averaged weights do not fit the statistics gathered on the way, and those of patch-wise norms move many times a step.
    """
    norms = [module for module in net.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        return net.eval()
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    net.train()
    for images, positions in windows:
        forward(net, images, positions)
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
