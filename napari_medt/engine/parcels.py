"""What travels to another computer: a model, and boxes of an image with all that is needed to segment them."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_medt.core import Cancel, Progress
from napari_medt.engine.blocks import Settings, segment_block
from napari_medt.engine.grid import Line
from napari_medt.engine.ladder import Effort
from napari_medt.engine.planes import is_empty, no_turn
from napari_medt.engine.prepare import Prepared
from napari_medt.engine.results import Results
from napari_medt.engine.running import Made, Task, by_the_ladder, effort_for
from napari_medt.engine.windows import Box

if TYPE_CHECKING:
    from napari_medt.zoo.card import ModelCard
    from napari_medt.zoo.model import Model

LARGEST = 2**25  # bytes of an image that travel together
MOST = 8  # boxes for each worker, unless they would be large
NEARLY = 1.05  # how many times longer all may take, to have more of them
_EVER_SMALLER = 2**31  # a window never halved: it would not fit what the other blocks found


class ModelParcel:
    """A model on its way: its card and, unless every computer has it, its weights; built once where it arrives.

    Attributes
    ----------
    digest
        Of card and weights.
    """

    def __init__(self, card: ModelCard, weights: bytes | None, digest: str) -> None:
        self._card, self._weights, self.digest = card, weights, digest
        self._built: Model | None = None
        self._lock = threading.Lock()

    @classmethod
    def of(cls, model: Model) -> ModelParcel:
        """Pack a model; the weights of a bundled one stay here, since it comes with the package.

        Raises
        ------
        BadWeights
            If its weights are not finite.
        """
        from napari_medt.zoo.weights import digest, dump_state

        weights = dump_state(model.net.state_dict(), half=False)
        whole = digest(model.card.model_dump_json().encode() + weights)
        return cls(model.card, None if _is_bundled(model) else weights, whole)

    @property
    def nbytes(self) -> int:
        """Size of the weights on the way."""
        return len(self._weights or b"")

    def work(self, segment: Callable[[Model], Made]) -> Made:
        """Call a function with the model, on the fastest device here; one after the other, since they share its memory."""
        with self._lock:
            if self._built is None:
                self._built = self._build()
            return segment(self._built)

    def _build(self) -> Model:
        from napari_medt.zoo.devices import choose_device
        from napari_medt.zoo.model import Model
        from napari_medt.zoo.store import build_net, load_model
        from napari_medt.zoo.weights import parse_state

        device = choose_device()
        if self._weights is None:
            return Model(self._card, load_model(self._card.key, device=str(device)).net, device)
        net = build_net(self._card, parse_state(self._weights, where=self._card.key), what=self._card.key)
        return Model(self._card, net.to(device), device)

    def __getstate__(self) -> dict[str, Any]:
        return {"_card": self._card, "_weights": self._weights, "digest": self.digest}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _built=None, _lock=threading.Lock())


def _is_bundled(model: Model) -> bool:
    """Whether a model is, weight by weight, one that comes with the package."""
    from napari_medt.core import BadModel
    from napari_medt.zoo.shelf import WEIGHTS, bundled_folder, find_model
    from napari_medt.zoo.weights import parse_state, read_bytes

    try:
        folder, card = find_model(model.card.key)
    except BadModel:
        return False
    if bundled_folder() not in folder.parents or card != model.card:
        return False
    stored, here = parse_state(read_bytes(folder / WEIGHTS), where=card.key), model.net.state_dict()
    return stored.keys() == here.keys() and all(bool((stored[k] == v.cpu()).all()) for k, v in here.items())


class Piece:
    """A part of an array that is indexed like the whole.

    Parameters
    ----------
    array
        `(c, *part)`.
    corner
        Where it begins along the spatial axes.
    shape
        Of the whole.
    """

    def __init__(self, array: npt.NDArray[Any], corner: Sequence[int], shape: Sequence[int]) -> None:
        self._array, self._corner = array, tuple(corner)
        self.shape, self.dtype, self.ndim = tuple(shape), array.dtype, array.ndim

    def __getitem__(self, where: tuple[slice, ...]) -> npt.NDArray[Any]:
        """One part, by slices with explicit ends for every spatial axis."""
        channels, *rest = where
        inside = (slice(part.start - a, part.stop - a) for part, a in zip(rest, self._corner, strict=True))
        found: npt.NDArray[Any] = self._array[(channels, *inside)]
        return found


@dataclass(frozen=True, eq=False)
class Parcel:
    """A box of an image on its way; nothing in it says whose image it is.

    Attributes
    ----------
    prepared
        Of the whole image, with only the values that the box depends on.
    box
        As of `segment_block`.
    settings
        What the result depends on.
    """

    prepared: Prepared
    box: Box
    settings: Settings

    @classmethod
    def of(cls, task: Task, box: Box) -> Parcel:
        """Read the values for one box."""
        image = task.volume.array
        array = image if task.prepared.grid.axes.is_identity else task.prepared.grid.axes.apply(image)
        needed = needed_box(task, box)
        values = np.ascontiguousarray(array[(slice(None), *needed)])
        piece: Any = Piece(values, [part.start for part in needed], array.shape)
        return cls(replace(task.prepared, array=piece, notes=()), box, task.settings)

    def open(self, model: Model, report: Progress, cancel: Cancel) -> tuple[Results, tuple[str, ...]]:
        """Segment the box; what was found, in the shape of the box, and what was done about missing memory."""
        shape = tuple(part.stop - part.start for part in self.box)

        def attempt(effort: Effort, say: Progress) -> Results:
            found = Results(shape, model.card, self.settings.wanted, axes=no_turn(len(shape)))
            model.net.to(effort.device).eval()
            parts = segment_block(
                model, self.prepared, self.box, effort=effort, settings=self.settings, progress=say, cancel=cancel
            )
            for where, values in parts:
                found.keep(
                    tuple(slice(w.start - b.start, w.stop - b.start) for w, b in zip(where, self.box, strict=True)),
                    values,
                )
            found.finish()
            return found

        return by_the_ladder(model, effort_for(model), attempt, report, smallest_window=_EVER_SMALLER)


def needed_box(task: Task, box: Box) -> Box:
    """The values of the rearranged image that a box depends on: those under all windows that touch it."""
    grid, window = task.prepared.grid, task.effort.window
    inner = grid.model_box(box)
    layout = task.settings.layout(grid.shape_model, window).touching(inner[-len(window) :])
    under = [
        slice(max(0, starts[0]), min(size, starts[-1] + edge))
        for starts, edge, size in zip(layout.starts, window, layout.shape, strict=True)
    ]
    reach = (*inner[: -len(window)], *under)
    return tuple(part if line.same else line.weights(part)[0] for line, part in zip(grid.lines, reach, strict=True))


def cut(task: Task, workers: int) -> list[Box]:
    """Cut what is to be segmented for so many workers, into boxes none of which is large.

    Borders lie where windows begin, and where they cost the fewest windows: neighbours on both sides of a border need some in
    common, but slices of a 2D model never do. There are as many boxes as let all workers be done the soonest, and rather more
    than fewer, since a worker may be slower than others, or be lost.

    Returns
    -------
    list of tuple of slice
        Row by row along the first axis.
    """
    if is_empty(task.box):
        return []
    axes = [_Axis.of(task, axis) for axis in range(len(task.box))]
    parts, found = [1] * len(axes), []
    while True:
        count = math.prod(parts)
        if small := _size(task, axes, parts) <= LARGEST:
            rounds = math.ceil(count / workers)
            found.append((rounds * math.prod(axis.most(n) for axis, n in zip(axes, parts, strict=True)), tuple(parts)))
        finer = [i for i, axis in enumerate(axes) if parts[i] < len(axis.borders) - 1]
        if not finer or (small and count >= MOST * workers):
            break
        parts[min(finer, key=lambda i: axes[i].windows(parts[i] + 1) / axes[i].windows(parts[i]))] += 1
    soonest = min(windows for windows, _ in found) if found else 0
    best = [chosen for windows, chosen in found if windows <= NEARLY * soonest][-1] if found else parts
    return list(product(*(axis.slices(n) for axis, n in zip(axes, best, strict=True))))


def windows_in(task: Task, box: Box) -> int:
    """How many windows a box takes."""
    return math.prod(_Axis.of(task, axis).windows_in(part) for axis, part in enumerate(box))


@dataclass(frozen=True)
class _Axis:
    """An axis of what is to be segmented.

    Attributes
    ----------
    line
        Of the grids.
    borders
        Where it can be cut, its ends among them, in samples of the rearranged image.
    starts, edge
        Of the windows on the model's grid; a window for each sample where every slice is an image of its own.
    """

    line: Line
    borders: tuple[int, ...]
    starts: npt.NDArray[Any]
    edge: int

    @classmethod
    def of(cls, task: Task, axis: int) -> _Axis:
        part, grid, window = task.box[axis], task.prepared.grid, task.effort.window
        line, first = grid.lines[axis], len(task.box) - len(window)
        if axis < first:
            return cls(line, tuple(range(part.start, part.stop + 1)), np.arange(line.model), 1)
        starts = np.array(task.settings.layout(grid.shape_model, window).starts[axis - first])
        inside = np.ceil(line.to_image(starts)).astype(int).tolist()
        borders = (part.start, *sorted({place for place in inside if part.start < place < part.stop}), part.stop)
        return cls(line, borders, starts, window[axis - first])

    def slices(self, count: int) -> list[slice]:
        """So many parts with about as many windows each."""
        last = len(self.borders) - 1
        first = min(1, self.edge - 1)  # the first part has no neighbour before it whose windows reach into it
        inner = (int(first + i * (last - first) / count) for i in range(1, count))
        return [slice(self.borders[a], self.borders[b]) for a, b in pairwise((0, *inner, last))]

    def windows_in(self, part: slice) -> int:
        """How many windows touch a part."""
        part = self.line.model_part(part)
        return int(np.count_nonzero((self.starts < part.stop) & (self.starts + self.edge > part.start)))

    def windows(self, count: int) -> int:
        """How many they are in so many parts together."""
        return sum(map(self.windows_in, self.slices(count)))

    def most(self, count: int) -> int:
        """How many they are in the fullest of so many parts."""
        return max(map(self.windows_in, self.slices(count)))


def _size(task: Task, axes: Sequence[_Axis], parts: Sequence[int]) -> int:
    """Bytes of the image for the largest box."""
    longest = [
        max(axis.slices(n), key=lambda part: part.stop - part.start) for axis, n in zip(axes, parts, strict=True)
    ]
    array = task.volume.array
    values = math.prod(part.stop - part.start for part in needed_box(task, tuple(longest)))
    return int(values * array.shape[0] * array.itemsize)
