"""Keys of the review: free on napari's image and labels layers, and working while the dock has the focus too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtGui import QKeySequence, QShortcut
from qtpy.QtWidgets import QWidget

Acts = Mapping[str, Callable[[], Any]]


class Shortcuts:
    """Binds keys to acts; a layer that uses one of them itself comes first.

    Parameters
    ----------
    viewer
        Where they work while the picture has the focus.
    dock
        Where they work while one of its controls has the focus.
    acts
        By key, as napari writes it: `"A"`, `"Shift-G"`.
    """

    def __init__(self, viewer: Any, dock: QWidget, acts: Acts) -> None:
        self._viewer, self._names = viewer, tuple(acts)
        for name, act in acts.items():
            viewer.bind_key(name, _as_bound(act), overwrite=True)
            shortcut = QShortcut(QKeySequence(name.replace("Control", "Ctrl").replace("-", "+")), dock)
            shortcut.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
            shortcut.activated.connect(act)

    def release(self) -> None:
        """Give the keys back to napari."""
        for name in self._names:
            self._viewer.bind_key(name, None, overwrite=True)


def _as_bound(act: Callable[[], Any]) -> Callable[[Any], None]:
    def bound(viewer: Any) -> None:
        act()

    return bound
