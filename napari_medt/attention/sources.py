"""What can be asked of a network: its sources of attention, and what is made of several of them together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from napari_medt.nets.axial_states import RowAndColumnState
from napari_medt.nets.capture import list_attention_sources
from napari_medt.nets.dual_attention import ChannelState
from napari_medt.nets.fine import WindowNet
from napari_medt.nets.states import AttentionSource, GateState, State
from napari_medt.nets.token_attention import Reach, TokenState, VolumeState, compose, compose_weighed
from napari_medt.nets.unetr import UNETR
from napari_medt.nets.vit import rollout
from napari_medt.nets.window_attention import WindowState

STILL = ("gate", "guided", "channel")  # kinds that are the same whatever point is asked about


@dataclass(frozen=True)
class Source:
    """Something that can be asked where a network looked.

    Attributes
    ----------
    name
        Unique in its network, for example `"global.layer1.0"`.
    kind
        Of `nets.states.Kind`; or `"guided"` (how strong guided features are), `"row and column"` (both attentions of an axial
        block), `"rollout"` (all blocks of a transformer as one) or `"composed"` (from places over the tokens of their window to
        everything behind these).
    heads
        Number of attention heads; 1 where there are none.
    level
        How often the input was halved where it sits: 0 at full resolution.
    parts
        The sources of the network that it is made of.
    """

    name: str
    kind: str
    heads: int
    level: int
    parts: tuple[str, ...]


@dataclass(frozen=True)
class Hops:
    """Everything a place drew on over the tokens of its window, as a state; see `nets.token_attention.compose`."""

    ask: WindowState
    mix: TokenState
    read: WindowState
    volume: VolumeState | None

    @property
    def grid(self) -> tuple[int, ...]:
        """Places that look and are looked at."""
        return self.ask.grid

    @property
    def samples(self) -> int:
        """Images in the batch."""
        return self.ask.samples

    @property
    def nbytes(self) -> int:
        """Memory kept."""
        return sum(state.nbytes for state in (self.ask, self.mix, self.read, self.volume) if state is not None)

    def reach(self, cell: tuple[int, ...], sample: int = 0) -> Reach:
        """What one place drew on, hop by hop."""
        z, y, x = cell
        return compose(self.ask, self.mix, self.read, self.volume, cell=(z, y, x), sample=sample)

    def row(self, cell: tuple[int, ...], sample: int = 0) -> Tensor:
        """The part that lies in the image, `(heads, z, y, x)`; with the part in the volume it sums to 1."""
        return self.reach(cell, sample).image

    def received(self, sample: int = 0) -> Tensor:
        """Mean over all places."""
        return self.weighed(self.ask.q.new_full(self.grid, 1 / math.prod(self.grid)), sample)

    def weighed(self, weights: Tensor, sample: int = 0) -> Tensor:
        """Sum of the rows of all places by their weights."""
        return compose_weighed(self.ask, self.mix, self.read, self.volume, weights=weights, sample=sample).image

    def choices(self, cell: tuple[int, ...], sample: int = 0) -> int:
        """All places of the image."""
        return math.prod(self.grid)


def list_sources(net: nn.Module) -> tuple[Source, ...]:
    """What can be asked of a network, from its input towards its output; empty for one that shows no attention."""
    plain = list_attention_sources(net)
    found = list(_singles_and_pairs(plain))
    if isinstance(net, UNETR):
        blocks = tuple(source.name for source in plain)
        found.append(Source("rollout", "rollout", 1, plain[0].level, blocks))
    if isinstance(net, WindowNet):
        found = list(_with_hops(found, authors=net.cells is not None and net.cells.wiring == "authors"))
    return tuple(found)


def _singles_and_pairs(plain: Sequence[AttentionSource]) -> Iterator[Source]:
    for source in plain:
        block, _, axis = source.name.rpartition(".")
        if source.kind == "axial column":
            yield Source(block, "row and column", source.heads, source.level, (source.name, f"{block}.width"))
        elif source.kind != "axial row":
            kind = "guided" if axis == "guided" else source.kind
            yield Source(source.name, kind, source.heads, source.level, (source.name,))


def _with_hops(sources: Sequence[Source], *, authors: bool) -> Iterator[Source]:
    """The sources, and after the window attention of a block what it reaches over the tokens of the block before."""
    names = {source.name for source in sources}
    windows = [source for source in sources if source.kind == "window"]
    hops: dict[str, Source] = {}
    for before, after in pairwise(windows):
        (stage, number), (other, _) = (
            source.name.removesuffix(".window").rsplit(".block", 1) for source in (before, after)
        )
        block = f"{stage}.block{number}"
        if stage == other and f"{block}.token" in names:
            # Volume tokens that attend after they are read are heard one block later.
            heard = f"{stage}.block{int(number) - authors}.volume"
            parts = (after.name, f"{block}.token", before.name, *([heard] if heard in names else []))
            name = after.name.removesuffix("window") + "composed"
            hops[after.name] = Source(name, "composed", after.heads, after.level, parts)
    for source in sources:
        yield source
        if source.name in hops:
            yield hops[source.name]


def state_of(source: Source, captured: Mapping[str, Any]) -> State:
    """What answers for a source, from what a pass recorded of its parts."""
    parts = [captured[name] for name in source.parts]
    if source.kind == "row and column":
        return RowAndColumnState(*parts)
    if source.kind == "rollout":
        return rollout(parts)
    if source.kind == "composed":
        ask, mix, read, *volume = parts
        return Hops(ask, mix, read, volume[0] if volume else None)
    state: State = parts[0]
    if isinstance(state, ChannelState):
        return GateState(state.change)
    return state


def condensed(state: State) -> State:
    """What is needed of a recorded state: of gates the mean over channels; all in single precision."""
    if isinstance(state, GateState):
        return GateState(state.values.float().mean(1, keepdim=True))
    return _changed(state, lambda tensor: tensor.float() if tensor.is_floating_point() else tensor)


def owned(state: State) -> State:
    """The same, with memory of its own where it was a part of something larger."""
    return _changed(
        state, lambda tensor: tensor.clone() if tensor.untyped_storage().nbytes() > tensor.nbytes else tensor
    )


def _changed(state: Any, change: Callable[[Tensor], Tensor]) -> State:
    """A state whose tensors are changed."""
    tensors = {field.name: getattr(state, field.name) for field in fields(state)}
    changes = {name: change(value) for name, value in tensors.items() if isinstance(value, Tensor)}
    changed: State = replace(state, **changes)
    return changed
