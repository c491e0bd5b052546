"""What is known of the mask of one picture: its layer, structures and rules, and how far its history goes."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject

from napari_medt.cases import Protection
from napari_medt.editing import OverlapPolicy, Rules
from napari_medt.widgets import layers, texts
from napari_medt.widgets.drafts import Found
from napari_medt.widgets.mask_history import MaskHistory
from napari_medt.widgets.timeline import Timeline

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_medt.cases import LastRun


class MaskState(QObject):
    """The part of `MaskEditor` that changes nothing.

    Attributes
    ----------
    picture
        What the mask belongs to.
    image_id
        Identity of its layer.
    classes
        Names of the labels, background first.
    shape
        Of the mask.
    model_key
        The model that ran last; empty without one, or where that of an earlier session is no longer there.
    run
        Which model made a mask of an earlier session, and how; `None` once a model was run on it.
    found
        A mask from an earlier session that is offered.
    protection
        Which structures are locked, and which regions frozen.
    """

    _history: MaskHistory

    def __init__(self, picture: layers.Picture, image_id: str, mask: Labels, classes: tuple[str, ...]) -> None:
        super().__init__()
        self.picture = picture
        self.image_id = image_id
        self.classes = classes
        self.shape = tuple(mask.data.shape)
        self.model_key = ""
        self.run: LastRun | None = None
        self.found: Found | None = None
        self.protection = Protection()
        self._overlap: OverlapPolicy = "replace"
        self._mask = weakref.ref(mask)
        self._shadow = np.array(mask.data)
        self._restored = False
        self._frozen: tuple[Any, float] = (None, 0.0)

    @property
    def mask(self) -> Any | None:
        """The layer, or `None` when it is gone."""
        return self._mask()

    @property
    def timeline(self) -> Timeline:
        """All changes, and how many of them are in the mask."""
        return self._history.timeline

    @property
    def voxels(self) -> dict[int, int]:
        """How many voxels each structure has."""
        return self._history.voxels

    @property
    def kept_words(self) -> str:
        """What to say of the draft on disk."""
        return self._history.kept_words

    @property
    def labels(self) -> np.ndarray:
        """The mask as far as it was taken into the history; only to be read, also from other threads."""
        return self._shadow

    @property
    def untouched(self) -> bool:
        """Whether nothing was ever done to this mask, so that it may go without asking."""
        return not self.timeline.changes and not self.model_key and not self._restored

    @property
    def has_mask(self) -> bool:
        """Whether there is something to learn from or to save."""
        return self.timeline.position > 0 or self._restored

    @property
    def edits(self) -> int:
        """Number of changes by hand or by a tool that are in the mask now."""
        return self.timeline.corrections

    @property
    def depth(self) -> int:
        """Number of changes that can be undone."""
        return self.timeline.position

    @property
    def undo_name(self) -> str:
        """What `undo` would take back, empty when there is nothing."""
        return self.timeline.undo_name

    @property
    def redo_name(self) -> str:
        """What `redo` would bring back."""
        return self.timeline.redo_name

    @property
    def moving(self) -> bool:
        """Whether a step back or forth is being unpacked; `when_still` says when that has ended."""
        return self._history.moving

    def when_still(self, act: Callable[[], Any]) -> None:
        """Do something once no step back or forth is being unpacked; it is forgotten when the mask goes before."""
        self._history.when_still(act)

    @property
    def structures(self) -> tuple[int, ...]:
        """Labels of the classes, and of whatever else is in the mask."""
        return tuple(sorted({*range(1, len(self.classes)), *self.voxels}))

    def name_of(self, label: int) -> str:
        """Name a structure."""
        return self.classes[label] if 0 <= label < len(self.classes) else texts.label_name(label)

    @property
    def frozen_share(self) -> float:
        """Share of the picture in which nothing may change."""
        frozen = self.protection.frozen
        if frozen is not self._frozen[0]:
            self._frozen = (frozen, 0.0 if frozen is None else float(np.count_nonzero(frozen) / frozen.size))
        return self._frozen[1]

    @property
    def rules(self) -> Rules:
        """What may not be changed, by whatever means."""
        return Rules(self.protection.locked, self.protection.frozen, self._overlap)
