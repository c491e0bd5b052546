"""Which weights of a network a fine-tuning moves: all, those of the last layers, or low-rank changes of all."""

from __future__ import annotations

import math
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

from napari_medt.core import MedtError
from napari_medt.training.optimise import forward

Learns = Literal["everything", "last layers", "adapters"]
PRESETS: tuple[Learns, ...] = ("everything", "last layers", "adapters")
LAST = 0.25  # share of the layers with weights, the last that run
RANK = 4


class LowRank(nn.Module):
    """Adds to a weight, seen as a matrix, a product of two thin ones, at first 0.

    Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, section 4.1.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        rows, columns = weight.shape[0], weight[0].numel()
        self.up = nn.Parameter(weight.new_zeros(rows, RANK))
        self.down = nn.Parameter(torch.randn(RANK, columns).to(weight) / math.sqrt(columns))

    def forward(self, weight: Tensor) -> Tensor:
        """The changed weight."""
        return weight + (self.up @ self.down).view_as(weight)


def choose(net: nn.Module, learns: Learns, images: Tensor, positions: Tensor) -> None:
    """Let only the weights of a preset learn.

    `"adapters"`: low-rank changes of every matrix and convolution that is wide enough, and all norms and biases.
    `"last layers"`: the last quarter of the layers, by when they run.

    Parameters
    ----------
    images, positions
        One batch, to see in which order layers run.

    Raises
    ------
    MedtError
        If there is no such preset.
    """
    if learns not in PRESETS:
        raise MedtError(f"Nothing learns as {learns!r}", remedy=f"choose one of {', '.join(PRESETS)}")
    if learns == "everything":
        return
    net.requires_grad_(False)
    if learns == "last layers":
        order = _running_order(net, images, positions)
        for module in order[-max(1, math.ceil(LAST * len(order))) :]:
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(True)
        return
    for module in list(net.modules()):
        if isinstance(module, (_ConvNd, nn.Linear)):
            weight = module.weight
            if min(weight.shape[0], weight[0].numel()) > 2 * RANK:
                parametrize.register_parametrization(module, "weight", LowRank(weight.detach()))
            else:
                weight.requires_grad_(True)  # so small that the change would be no smaller, such as the last layer
            if module.bias is not None:
                module.bias.requires_grad_(True)
        elif isinstance(module, (_NormBase, nn.LayerNorm, nn.GroupNorm)):
            module.requires_grad_(True)


def merge(net: nn.Module) -> nn.Module:
    """Put low-rank changes into the weights they change, in place: the network is of its architecture again."""
    for module in list(net.modules()):
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    return net


def merged_state(net: nn.Module) -> dict[str, Tensor]:
    """The weights as after `merge`, copied, the network as it is."""
    state = {}
    for name, value in net.state_dict().items():
        stem, _, rest = name.partition("parametrizations.weight.")
        if rest == "original":
            value = cast("Tensor", net.get_submodule(stem.rstrip(".")).weight)
            name = f"{stem}weight"
        elif rest:
            continue
        state[name] = value.detach().clone()
    return state


def _running_order(net: nn.Module, images: Tensor, positions: Tensor) -> list[nn.Module]:
    """Modules with parameters of their own in the order in which they first ran; those that never ran as such left out."""
    order: dict[nn.Module, None] = {}
    hooks = [
        module.register_forward_hook(lambda module, *_: order.setdefault(module))
        for module in net.modules()
        if next(module.parameters(recurse=False), None) is not None
    ]
    try:
        with torch.no_grad():
            forward(net, images, positions)
    finally:
        for hook in hooks:
            hook.remove()
    return list(order)
