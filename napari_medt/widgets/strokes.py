"""Where napari's tools, or another plugin, may have changed a mask layer, and what the tool was called."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from napari_medt.editing.parts import around
from napari_medt.widgets import texts

if TYPE_CHECKING:
    from napari.layers import Labels

Box = tuple[slice, ...]

WHOLE_VOXELS = 8_000_000
"""Up to this size the whole mask is compared after a stroke, which takes milliseconds; above it only the touched box."""


class Strokes(QObject):
    """Listens to one mask layer.

    Parameters
    ----------
    mask
        The layer.
    plane
        Gives the slices on which strokes of a disc land, or `None` for everywhere.

    Signals
    -------
    ended
        Something was painted; it is time to compare.
    replaced
        Another array was put into the layer.
    """

    ended = Signal()
    replaced = Signal()

    def __init__(self, mask: Labels, plane: Callable[[], Box | None]) -> None:
        super().__init__()
        self._mask: Any = mask
        self._plane = plane
        self._touched: list[Box] = []
        self.name = ""
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.timeout.connect(self.ended)
        mask.events.paint.connect(self._painted)
        mask.events.labels_update.connect(self._updated)
        mask.events.data.connect(self._data_replaced)

    def close(self) -> None:
        """Listen no more."""
        self._later.stop()
        self._mask.events.paint.disconnect(self._painted)
        self._mask.events.labels_update.disconnect(self._updated)
        self._mask.events.data.disconnect(self._data_replaced)
        self._mask = None

    @property
    def pending(self) -> bool:
        """Whether something was painted that nobody has looked at yet."""
        return bool(self._touched or self.name)

    def soon(self) -> None:
        """Have the mask compared soon: napari announces some edits before it has written them."""
        self._later.start(0)

    def draw(self, box: Box, name: str) -> None:
        """Take note of a piece of a stroke of our own, which ends with `soon`."""
        self._touched.append(box)
        self.name = name

    def places(self, shape: tuple[int, ...], *, everywhere: bool = False) -> Box | None:
        """Return the box in which something may have changed; `None` where that is nowhere."""
        whole = tuple(slice(0, size) for size in shape)
        if everywhere or int(np.prod(shape)) <= WHOLE_VOXELS:
            return whole
        if self._touched:
            return around(self._touched)
        if not self.name:
            return None
        ball = self._mask.n_edit_dimensions > 2  # not a disc on the slice that is shown
        return (None if ball else self._plane()) or whole

    def seen(self) -> None:
        """Take note that all was looked at."""
        self._later.stop()
        self._touched.clear()
        self.name = ""

    def _updated(self, event: Any) -> None:
        """Remember the box that napari redrew."""
        if self._mask.data.ndim == 2:
            offset, shape = event.offset, event.data.shape
            self._touched.append(tuple(slice(int(o), int(o) + n) for o, n in zip(offset, shape[:2], strict=True)))

    def _painted(self, event: Any) -> None:
        self.name = texts.STROKE_NAMES.get(str(self._mask.mode), texts.OTHER_EDIT)
        self.soon()

    def _data_replaced(self, event: Any = None) -> None:
        self._touched = [tuple(slice(0, size) for size in self._mask.data.shape)]
        self.replaced.emit()
