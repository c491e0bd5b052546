"""What a training step takes, found without computing it: tensors on torch's `meta` device have a size and no values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from napari_medt.nets import create_net

STATE_BYTES = 20  # a parameter: itself, its gradient, two moments, a moving average
OVERHEAD = 1.5  # for what comes and goes within a layer, and for the allocator
BACKWARD = 3  # a step takes about three times the work of its forward pass
_TWO = 2  # windows looked at, as norms over a batch refuse a single one whose coarsest level is one sample
_PROBE = 64  # px, edge of the windows by which networks that do not run on `meta` are looked at


@dataclass(frozen=True)
class Cost:
    """What a training step takes: bytes whatever the batch, and bytes and billions of operations for each window in it."""

    fixed: float
    each: float
    gflop_each: float

    def nbytes(self, batch: int) -> float:
        """Memory of a step."""
        return self.fixed + batch * self.each


def step_cost(name: str, options: Mapping[str, Any], window: Sequence[int]) -> Cost:
    """Estimate a training step in single precision with AdamW.

    What the forward pass keeps for the backward pass is counted, not guessed; to it come the parameters with what the optimiser
    keeps of each, and half as much again for what is short-lived.

    Parameters
    ----------
    name, options
        As for `create_net`; an option `img_size` becomes `window`.
    window
        Spatial axes, in samples.

    Raises
    ------
    BadModel
        If the network cannot be built so.
    """
    larger = 1.0
    try:
        kept, weights, flop = _forward(name, options, window, "meta")
    except (RuntimeError, NotImplementedError):  # not all layers know `meta`
        small = tuple(min(edge, _PROBE) for edge in window)
        kept, weights, flop = _forward(name, options, small, "cpu")
        larger = math.prod(window) / math.prod(small)
    return Cost(STATE_BYTES * weights, OVERHEAD * kept * larger / _TWO, BACKWARD * flop * larger / _TWO / 1e9)


def _forward(name: str, options: Mapping[str, Any], window: Sequence[int], device: str) -> tuple[float, int, float]:
    """Bytes kept by a forward pass of two windows, number of parameters, operations."""
    sized = dict(options) | ({"img_size": tuple(window)} if "img_size" in options else {})
    state = torch.get_rng_state()
    try:
        with torch.device(device):
            net: nn.Module = create_net(name, **sized).train()
            images = torch.zeros((_TWO, options["in_channels"], *window))
            with keeping(net) as kept, FlopCounterMode(display=False) as work:
                net(images)
    finally:
        torch.set_rng_state(state)  # looking must not change what is drawn next
    return float(kept.nbytes + images.nbytes), sum(p.numel() for p in net.parameters()), float(work.get_total_flops())


class Kept:
    """What was kept for a backward pass beside the parameters; held, so that no address is given out twice."""

    def __init__(self) -> None:
        self.storages: dict[int, torch.UntypedStorage] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of it."""
        return sum(storage.nbytes() for storage in self.storages.values())


@contextmanager
def keeping(net: nn.Module) -> Iterator[Kept]:
    """Count what forward passes of a network keep for their backward passes."""
    own, found = {p.untyped_storage()._cdata for p in net.parameters()}, Kept()

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            found.storages[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield found
