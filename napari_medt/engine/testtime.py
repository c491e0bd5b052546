"""From windows to probabilities: one pass through the network, or the mean of several, and how much these disagree."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, combinations
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from napari_medt.core import BadModel
from napari_medt.nets.layers import with_background

if TYPE_CHECKING:
    from napari_medt.zoo.model import Model

DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
DROPOUT_PASSES = 8


@dataclass(eq=False)
class Passes:
    """How windows go through the network of a model.

    Attributes
    ----------
    model
        Whose network is used, on `device`; its card may hold a `temperature`, by which logits are divided.
    device
        Where the network lies.
    flips
        Whether the mean over all mirror images of a window is taken.
    dropout
        Whether the mean over passes with dropout is taken; the same window always drops the same.
    disagreement
        Whether the mean entropy of the single passes goes along as one channel more, or as one for each structure where these
        overlap.
    """

    model: Model
    device: torch.device
    flips: bool = False
    dropout: bool = False
    disagreement: bool = False
    _room: dict[str, Tensor] = field(default_factory=dict, init=False)

    @property
    def channels(self) -> int:
        """Of the result: probabilities, and the entropies with `disagreement`."""
        card = self.model.card
        return card.chances + self.disagreement * (card.chances if card.overlapping else 1)

    @property
    def count(self) -> int:
        """Passes through the network for every window."""
        return DROPOUT_PASSES if self.dropout else len(self._mirrors)

    @property
    def _mirrors(self) -> list[tuple[int, ...]]:
        """Axes that are mirrored, pass by pass."""
        axes = range(self.model.card.spatial_dims if self.flips else 0)
        return list(chain.from_iterable(combinations(axes, n) for n in range(len(axes) + 1)))

    @torch.inference_mode()
    def __call__(self, windows: Tensor, positions: Tensor, corners: Sequence[tuple[int, ...]]) -> Tensor:
        """Class probabilities of windows.

        Parameters
        ----------
        windows
            `(n, c, *window)` on `device`.
        positions
            `(n, dims)`: centre of each window minus centre of the volume in voxels, for networks that take it.
        corners
            Of each window; they decide what dropout drops.

        Returns
        -------
        Tensor
            `(n, channels, *window)` float32, free to be changed, and valid until the next call.
        """
        if self.dropout:
            drawn = (
                self._dropped(windows[i : i + 1], positions[i : i + 1], corner) for i, corner in enumerate(corners)
            )
            return torch.cat(list(drawn))
        return self._mean(windows, positions, self._mirrors)

    def _dropped(self, window: Tensor, position: Tensor, corner: tuple[int, ...]) -> Tensor:
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices), dropping(self.model.net):
            torch.manual_seed(zlib.crc32(repr(corner).encode()))
            mirrors = self._mirrors
            return self._mean(window, position, [mirrors[i % len(mirrors)] for i in range(DROPOUT_PASSES)]).clone()

    def _mean(self, windows: Tensor, positions: Tensor, passes: Sequence[tuple[int, ...]]) -> Tensor:
        """Mean over passes, each with some axes mirrored."""
        total: Tensor | None = None
        for mirrored in passes:
            dims = [axis + 2 for axis in mirrored]
            signs = torch.ones_like(positions)
            signs[:, list(mirrored)] = -1
            room = "first" if total is None else "other"
            found = self._once(windows.flip(dims) if dims else windows, positions * signs, room)
            if self.disagreement:
                entropy = torch.special.entr(found)
                if self.model.card.overlapping:
                    entropy += torch.special.entr(1 - found)
                else:
                    entropy = entropy.sum(1, keepdim=True)
                found = torch.cat((found, entropy), 1)
            found = found.flip(dims) if dims else found
            total = found if total is None else total.add_(found)
        assert total is not None  # there is always one pass
        return total.div_(len(passes)) if len(passes) > 1 else total

    def _once(self, windows: Tensor, positions: Tensor, room: str) -> Tensor:
        """Softmax over classes, or sigmoid of each, `(n, k, *window)`, in memory that is used again and again."""
        net, card = self.model.net, self.model.card
        with torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda"):
            logits = net(windows, positions) if getattr(net, "takes_position", False) else net(windows)
        logits = logits.float() if card.overlapping else with_background(logits.float())
        if room not in self._room or self._room[room].shape != logits.shape:
            self._room[room] = torch.empty_like(logits, memory_format=torch.contiguous_format)
        temperature = getattr(card, "temperature", 1.0)
        if card.overlapping:
            return torch.div(logits, temperature, out=self._room[room]).sigmoid_()
        # Step by step in place, since torch's own softmax over channels takes nearly twice as long.
        found = torch.sub(logits, logits.amax(1, keepdim=True), out=self._room[room])
        del logits
        if temperature != 1:
            found /= temperature
        found.exp_()
        found /= found.sum(1, keepdim=True)
        return found


@contextlib.contextmanager
def dropping(net: nn.Module) -> Iterator[None]:
    """Let only the dropout layers of a network work as in training."""
    layers = dropout_layers(net)
    before = [layer.training for layer in layers]
    try:
        for layer in layers:
            layer.train()
        yield
    finally:
        for layer, training in zip(layers, before, strict=True):
            layer.train(training)


def dropout_layers(net: nn.Module) -> list[nn.Module]:
    """The layers of a network that drop anything in training."""
    return [module for module in net.modules() if isinstance(module, DROPOUTS) and module.p > 0]


def check_dropout(model: Model) -> None:
    """Refuse a network without dropout.

    Raises
    ------
    BadModel
        Saying which uncertainty can be had instead.
    """
    if not dropout_layers(model.net):
        raise BadModel(
            f"{model.card.title} has no dropout, so its uncertainty cannot be found by dropout",
            remedy="choose another way to find unsure places, such as entropy",
        )
