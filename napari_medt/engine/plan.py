"""What a prediction will take, told before it starts."""

from __future__ import annotations

import math
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

import numpy.typing as npt
import psutil
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from napari_medt.core import Volume
from napari_medt.core.memory import allowed
from napari_medt.engine.blocks import Index, in_words, load, positions
from napari_medt.engine.planes import is_empty
from napari_medt.engine.results import kept_bytes
from napari_medt.engine.rows import Rows
from napari_medt.engine.running import Options, Task, set_up
from napari_medt.engine.stitch import Stitch
from napari_medt.engine.windows import Box

if TYPE_CHECKING:
    from napari_medt.engine.testtime import Passes
    from napari_medt.zoo.model import Model


@dataclass(frozen=True)
class Plan:
    """What a prediction will take.

    Attributes
    ----------
    windows
        How many pass through the network, mirror images and repetitions not counted.
    batch
        Windows in one pass.
    memory_mb
        Beside the image itself and, unless measured, what the network takes between its layers; on the GPU where there is one.
    seconds
        From one warm window; None unless measured.
    sentence
        The same for people.
    """

    windows: int
    batch: int
    memory_mb: float
    seconds: float | None
    sentence: str


def plan(model: Model, image: Volume | npt.ArrayLike, *, measure: bool = False, **options: Unpack[Options]) -> Plan:
    """What a prediction will take.

    Parameters
    ----------
    model, image, **options
        As of `predict`.
    measure
        Pass one batch of windows through the network, twice, to find its memory and its time.

    Raises
    ------
    MedtError
        As `predict` does before it starts.
    """
    task = set_up(model, image, **options)
    effort, dims = task.effort, model.card.spatial_dims
    if is_empty(task.box):
        return Plan(0, effort.batch, 0.0, 0.0 if measure else None, "There is nothing to segment.")
    box = task.prepared.grid.model_box(task.box)
    layout = task.settings.layout(task.prepared.spatial_shape, effort.window).touching(box[-dims:])
    passes = task.settings.passes(model, effort.device)
    slices = math.prod(part.stop - part.start for part in box[:-dims])
    windows = slices * len(layout)
    stitch = Stitch(passes.channels, layout, box[-dims:], blending=task.settings.blending, device="meta")
    batch = min(effort.batch, windows)
    samples = 4 * batch * math.prod(effort.window)
    several = passes.count > 1
    memory = stitch.nbytes + samples * (2 * model.card.in_channels + (2 + several) * passes.channels) + _kept(task)
    seconds = None
    if measure:
        most, once = _measure(task, passes, (*(part.start for part in box[:-dims]),), next(iter(layout)), batch)
        memory += most
        seconds = once * windows / batch
    return Plan(windows, batch, memory / 1e6, seconds, _sentence(windows, memory, seconds, effort.device))


def _kept(task: Task) -> int:
    """Bytes of what is kept of the whole image, and of the rows that are held of one that is not in memory."""
    kept = kept_bytes(math.prod(task.volume.spatial_shape), task.model.card, task.settings.wanted)
    array: Any = task.prepared.array
    if isinstance(array, Rows):
        rows = min(2 * task.effort.window[0], array.shape[1])
        kept += array.dtype.itemsize * array.shape[0] * rows * math.prod(array.shape[2:])
    return kept


def _measure(task: Task, passes: Passes, index: Index, where: Box, batch: int) -> tuple[int, float]:
    """Bytes that the network holds at most, and seconds of one batch of the first window."""
    chunk = [(index, where)] * batch
    shape = task.prepared.spatial_shape[-len(where) :]
    task.model.net.to(task.effort.device).eval()

    def run() -> None:
        inputs = load(task.prepared, chunk, task.effort, task.settings.blending)
        found = passes(inputs, positions(chunk, task.effort, shape), [index] * batch)
        found.sum().item()  # a GPU is done only when it has answered

    live = _Live()
    with live:
        run()
    begin = time.perf_counter()
    run()
    return live.most, time.perf_counter() - begin


class _Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensors that are alive, at most, while it is active."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call an operation, and count what it made."""
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor):
                storage = leaf.untyped_storage()
                if id(storage) not in self._known:
                    self._known.add(id(storage))
                    self._now += storage.nbytes()
                    weakref.finalize(storage, self._gone, id(storage), storage.nbytes())
        self.most = max(self.most, self._now)
        return made

    def _gone(self, storage: int, size: int) -> None:
        self._known.discard(storage)
        self._now -= size


def _sentence(windows: int, memory: float, seconds: float | None, device: torch.device) -> str:
    number = "One window" if windows == 1 else f"{windows} windows"
    parts = [number, f"about {_size(memory)} of memory"]
    if seconds is not None:
        parts.append(in_words(seconds))
    cuda = device.type == "cuda"
    free = torch.cuda.mem_get_info(device)[0] if cuda else allowed(psutil.virtual_memory().available)
    short = f"; only {_size(free)} are free, so less may be done at a time" if memory > free else ""
    return f"{', '.join(parts)}{short}."


def _size(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{max(1, round(size / 1e6))} MB"
