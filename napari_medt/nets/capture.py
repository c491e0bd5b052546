"""Attention kept only while somebody asks for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from napari_medt.nets.layers import per_axis
from napari_medt.nets.states import AttentionSource, State


class Recorder(nn.Module):
    """A place that attends: while `seen` is a list, every forward pass appends its `State`."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[State] | None = None


@runtime_checkable
class AttentionNet(Protocol):
    """A network that names the places where it attends."""

    multiple: int | tuple[int, ...]

    def attention_sources(self) -> dict[AttentionSource, Any]:
        """Every source and the module with the attribute `seen` that records it, in the order they run."""


def list_attention_sources(net: nn.Module) -> tuple[AttentionSource, ...]:
    """Where a network attends, in the order it computes; empty for a network without attention."""
    return tuple(net.attention_sources()) if isinstance(net, AttentionNet) else ()


@contextmanager
def capture(
    net: nn.Module, sources: Sequence[str] | None = None, *, query: tuple[int, ...] | None = None
) -> Iterator[dict[str, Any]]:
    """Record the attention of `net` during the forward passes inside the block; nothing is kept outside it.

    Parameters
    ----------
    net
        A network that lists sources, in evaluation mode.
    sources
        Names of sources; all by default.
    query
        Index `(y, x)` or `(z, y, x)` of a place of the network's input.

    Yields
    ------
    dict
        Source name to a list with one entry a forward pass. Without `query` a `State`, which gives any row later; with
        `query` that row alone, `(n, heads, *places looked at)`, which sums to 1 a head, or the gate `(n, channels, *grid)`.

    Raises
    ------
    ValueError
        If a name is no source of the network, or the query lies outside the input.
    """
    recorders = (
        {source.name: module for source, module in net.attention_sources().items()}
        if isinstance(net, AttentionNet)
        else {}
    )
    unknown = sorted(set(sources or ()) - set(recorders))
    if unknown:
        raise ValueError(
            f"{type(net).__name__} has no attention source {', '.join(unknown)}; it has {', '.join(recorders) or 'none'}"
        )
    chosen = {name: recorders[name] for name in (recorders if sources is None else sources)}
    captured: dict[str, Any] = {name: [] if query is None else _Rows(query) for name in chosen}
    handle = net.register_forward_pre_hook(lambda _, inputs: _tell_size(net, inputs[0], captured))
    try:
        for name, module in chosen.items():
            module.seen = captured[name]
        yield captured
    finally:
        handle.remove()
        for module in chosen.values():
            module.seen = None


class _Rows(list[Tensor]):
    """Takes states and keeps the row of one query of each."""

    def __init__(self, query: tuple[int, ...]) -> None:
        super().__init__()
        self.query, self.padded = query, query

    def append(self, state: Any) -> None:
        cell = tuple(q * cells // size for q, cells, size in zip(self.query, state.grid, self.padded, strict=True))
        super().append(torch.stack([state.row(cell, sample) for sample in range(state.samples)]))


def _tell_size(net: Any, x: Tensor, captured: dict[str, Any]) -> None:
    shape = tuple(x.shape[2:])
    multiples = per_axis(net.multiple, len(shape))
    padded = tuple(-(-size // multiple) * multiple for size, multiple in zip(shape, multiples, strict=True))
    for rows in captured.values():
        if isinstance(rows, _Rows):
            if len(rows.query) != len(shape) or not all(0 <= q < n for q, n in zip(rows.query, shape, strict=True)):
                raise ValueError(f"the query {rows.query} lies outside the input of {shape}")
            rows.padded = padded
