"""Attention kept only while somebody asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import nn

from napari_medt.nets.axial import AxialBlock, AxialState


@runtime_checkable
class AttentionNet(Protocol):
    """A network that names the blocks whose attention can be looked at."""

    def attention_blocks(self) -> dict[str, AxialBlock]:
        """Source name, for example `"global.layer1.0"`, to block."""

    def attention_patches(self, source: str) -> int:
        """Edge of the grid of patches that the source works in: 1 where it sees the whole image."""


@dataclass
class Captured:
    """States of one block, one entry a forward pass: first the height attention, then the width attention."""

    height: list[AxialState]
    width: list[AxialState]


@contextmanager
def capture_attention(net: nn.Module, sources: tuple[str, ...] | None = None) -> Iterator[dict[str, Captured]]:
    """Record the attention of `net` during the forward passes inside the block; nothing is kept outside it.

    Parameters
    ----------
    net
        An `AttentionNet`, in evaluation mode.
    sources
        Names of blocks; all by default.
    """
    if not isinstance(net, AttentionNet):
        raise TypeError(f"{type(net).__name__} shows no attention")
    blocks = net.attention_blocks()
    chosen = {name: blocks[name] for name in sources or blocks}
    captured = {name: Captured([], []) for name in chosen}
    try:
        for name, block in chosen.items():
            block.height.recorder, block.width.recorder = captured[name].height, captured[name].width
        yield captured
    finally:
        for block in chosen.values():
            block.height.recorder = block.width.recorder = None
