"""The tools of step 3: a row of the common ones, a menu of the rest, and what the chosen one would do, before it is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QMenu, QToolButton, QVBoxLayout, QWidget

from napari_medt.core import BadEdit, MedtError
from napari_medt.editing import Edit
from napari_medt.widgets import layers, texts
from napari_medt.widgets._compat import remove_together
from napari_medt.widgets.bridge import Bridge
from napari_medt.widgets.clicks import CanvasClicks
from napari_medt.widgets.mask_editor import MaskEditor
from napari_medt.widgets.parts import FlowLayout, button, named
from napari_medt.widgets.pointing import Point
from napari_medt.widgets.review import Review
from napari_medt.widgets.tool_context import offered_for, wish_for
from napari_medt.widgets.tool_form import ToolForm
from napari_medt.widgets.tool_work import Outlook, look_ahead, piece_of_stroke
from napari_medt.widgets.tools import COMMON, MORE, TOOLS, Scale, Tool

WAIT_MS = 120
BUSY_MS = 400


class Toolbox(QWidget):
    """Offers every tool; what one would change is worked out beside the window and shown over the picture.

    Signals
    -------
    said
        A sentence for the message line of the step, and its kind.
    turned
        A tool was opened or closed.
    """

    said = Signal(str, str)
    turned = Signal()

    def __init__(self, review: Review) -> None:
        super().__init__()
        self.review = review
        self.tool: Tool | None = None
        self.outlook: Outlook | None = None
        self.form = ToolForm()
        self.clicks = CanvasClicks(review.viewer)
        self._bridge = Bridge(self)
        self._points: list[Point] = []
        self._turn = 0
        self._working = False
        self._again = False
        self._wanted = False
        self._stroke: list[Point] = []
        self._stroke_over = False
        self._held: tuple[MaskEditor, Any] | None = None
        self.buttons = {name: self._button(name) for name in COMMON}
        self.more_button = named(QToolButton(), "more_tools")
        self.more_button.setText(texts.MORE_TOOLS)
        self.more_button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.more_button.setMenu(self._menu())
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(6)
        box.addLayout(FlowLayout(*self.buttons.values(), self.more_button, spacing=4))
        box.addWidget(self.form)
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(WAIT_MS)
        self._soon.timeout.connect(self._ask)
        self._slow = QTimer(self)
        self._slow.setSingleShot(True)
        self._slow.setInterval(BUSY_MS)
        self._slow.timeout.connect(lambda: self.form.progress.begin(texts.TOOL_WORKING))
        self.form.changed.connect(self.refresh)
        self.form.applied.connect(self.apply)
        self.form.cancelled.connect(self.close_tool)
        self.clicks.clicked.connect(self._clicked)
        self.clicks.hovered.connect(self._hovered)
        self.clicks.drawn.connect(self._drawn)
        self.clicks.ended.connect(self._stroke_ended)
        review.tool_taken.connect(self.close_tool)
        review.image_changed.connect(self.close_tool)

    def _button(self, name: str) -> Any:
        made = button(texts.TOOL_NAMES[name], name, clicked=lambda: self.toggle(name), checkable=True)
        made.setToolTip(texts.with_key(texts.TOOLTIPS[name], name))
        return made

    def _menu(self) -> QMenu:
        menu = named(QMenu(self), "more_tools")
        menu.setToolTipsVisible(True)
        for group, names in MORE.items():
            menu.addSection(texts.TOOL_GROUPS[group])
            for name in names:
                action = menu.addAction(texts.menu_entry(name), lambda name=name: self.toggle(name))
                action.setObjectName(name)
                action.setToolTip(texts.with_key(texts.TOOLTIPS[name], name))
        return menu

    # -------------------------------------------------------------------------------------------------------- open, close

    @property
    def idle(self) -> bool:
        """Whether nothing is being worked out or waits to be."""
        return not self._working and not self._soon.isActive() and not self._stroke

    @property
    def _current(self) -> bool:
        """Whether what is shown is what the form, the mask and the pointer ask for now."""
        return not self._working and not self._again and not self._soon.isActive()

    @property
    def _seen_whole(self) -> bool:
        """Whether a volume is shown in 3D, and no slice of it."""
        work = self.review.work
        return work is not None and len(work.shape) == 3 and self.review.viewer.dims.ndisplay == 3

    def offer(self) -> None:
        """Show the tools that make sense for the present picture."""
        work = self.review.work
        volume = work is not None and len(work.shape) == 3
        for name, made in self.buttons.items():
            made.setVisible(volume or not TOOLS[name].volume)

    def toggle(self, name: str) -> None:
        """Open a tool, or close it if it is open."""
        if self.tool is not None and self.tool.name == name:
            self.close_tool()
        else:
            self.open(name)

    def open(self, name: str) -> None:
        """Show a tool's form, and what it would do."""
        work = self.review.work
        mask = work.mask if work is not None else None
        if work is None or mask is None or self.review.busy == "run":
            return
        self.review.tool_taken.emit()  # closes what was open, here and in step 2
        tool = TOOLS[name]
        offered = offered_for(self.review, work, mask)
        if tool.volume and not offered.volume:
            self.said.emit(texts.ONLY_VOLUMES, "plain")
            self._show_open()
            return
        if offered.active not in offered.names and offered.names:
            mask.selected_label = next(iter(offered.names))
            offered = offered_for(self.review, work, mask)
        self.tool = tool
        self.review.viewer.layers.selection.active = mask  # what is undone next is what this tool did
        self.form.ask(tool, offered)
        self.review.layers.outline(self.review.image, False)
        self.clicks.listen(mask, tool.clicks)
        self._follow(work, mask)
        self._show_open()
        self.refresh()

    def close_tool(self) -> None:
        """Forget what the open tool would do."""
        self.clicks.stop()
        self._follow(None, None)
        self.tool = None
        self._forget()
        self.form.hide()
        self._show_open()

    def _forget(self) -> None:
        """Let go of what was clicked and shown, and of what is still being worked out."""
        self._turn += 1
        self._soon.stop()
        self._again = self._wanted = False
        self._idle_again()
        self.outlook, self._points, self._stroke, self._stroke_over = None, [], [], False
        self._hide_preview()

    def shut(self) -> None:
        """Close for good."""
        self.close_tool()
        remove_together(self.review.viewer, self._previews())
        self._bridge.close()

    def _show_open(self) -> None:
        for name, made in self.buttons.items():
            made.setChecked(self.tool is not None and self.tool.name == name)
        self.turned.emit()

    def _follow(self, work: MaskEditor | None, mask: Any) -> None:
        """Work it out anew when the mask, the active structure or the slice is another."""
        dims = self.review.viewer.dims.events
        if self._held is not None:
            old, layer = self._held
            old.changed.disconnect(self.refresh)
            layer.events.selected_label.disconnect(self._other_place)
            layer.events.mode.disconnect(self._other_mode)
            dims.current_step.disconnect(self._other_place)
            dims.ndisplay.disconnect(self._other_place)
        self._held = None if work is None else (work, mask)
        if work is not None:
            work.changed.connect(self.refresh)
            mask.events.selected_label.connect(self._other_place)
            mask.events.mode.connect(self._other_mode)
            dims.current_step.connect(self._other_place)
            dims.ndisplay.connect(self._other_place)

    def _other_place(self, event: Any = None) -> None:
        self.refresh()

    def _other_mode(self, event: Any = None) -> None:
        """Give way to a tool of napari's."""
        if self._held is not None and str(self._held[1].mode) != "pan_zoom":
            self.close_tool()

    # ----------------------------------------------------------------------------------------------------------- preview

    def refresh(self) -> None:
        """Work out soon what the open tool would do now."""
        work = self.review.work
        if self.tool is None or work is None or work.mask is None:
            return
        if self.tool.clicks == "stroke":
            world = work.mask.scale[-1] if Scale.of(work.picture.geometry).unit == "px" else 1.0
            self.clicks.show_brush(float(self.form.boxes["diameter"].value() * world))
            self.form.say(texts.ONLY_SLICES if self._seen_whole else "")
        else:
            self._soon.start()

    def _ask(self) -> None:
        """Have the open tool worked out; what was asked before is forgotten."""
        tool = self.tool
        if tool is None:
            return
        if tool.slices and self._seen_whole:
            self._show(None)
            self.form.say(texts.ONLY_SLICES)
            return
        if tool.clicks in ("point", "points", "line", "hover") and not self._points:
            self._show(None)
            self.form.say(texts.TOOL_CLICKS[tool.clicks])
            return
        if self._working:
            self._again = True
            return
        if self.review.work is not None:
            self.review.work.flush()
        wished = wish_for(self.review, self._points, self.form.values())
        if wished is not None:
            work, wish = wished
            rules = work.rules
            self._run(lambda: look_ahead(tool, wish, rules), then=self._show, failed=self._cannot)

    def _run(self, job: Callable[[], Any], *, then: Callable[[Any], Any], failed: Callable[[MedtError], Any]) -> None:
        self._working = True
        self._slow.start()
        turn = self._turn

        def ended(finish: Callable[[Any], Any], found: Any) -> None:
            if turn != self._turn:
                return  # the tool was closed meanwhile
            self._idle_again()
            finish(found)
            if self._again:
                self._again = False
                self._ask()

        self._bridge.aside(job, then=lambda found: ended(then, found), failed=lambda error: ended(failed, error))

    def _idle_again(self) -> None:
        self._working = False
        self._slow.stop()
        self.form.progress.end()

    def _show(self, outlook: Outlook | None) -> None:
        """Lay what would change over the picture, and say how much it is."""
        self.outlook = outlook
        work, image = self.review.work, self.review.image
        if outlook is None or work is None or image is None or work.mask is None:
            self._wanted = False
            self._hide_preview()
            return
        edit = outlook.verdict.edit or outlook.verdict.asked
        assert edit is not None
        start = [part.start for part in edit.box]
        self.review.layers.show_preview(image, work.mask, outlook.picture, start)
        geometry = work.picture.geometry
        said = {kind: texts.extent(voxels, geometry.spacing, geometry.units) for kind, voxels in outlook.voxels.items()}
        asks = [work.name_of(label) for label in outlook.verdict.taken]
        self.form.say(texts.outlook(said, layers.PREVIEW_COLOURS, asks), ready=True)
        if self._wanted and self._current:
            self.apply()

    def _cannot(self, error: MedtError) -> None:
        self._show(None)
        work = self.review.work
        self.form.say(
            texts.with_names(str(error), {} if work is None else {n: work.name_of(n) for n in work.structures})
        )
        if not isinstance(error, BadEdit):
            self.said.emit(str(error), "error")

    def _previews(self) -> list[Any]:
        found = [layer for layer in self.review.viewer.layers if layers.is_ours(layer)]
        return [layer for layer in found if layer.metadata[layers.KEY]["role"] == "preview"]

    def _hide_preview(self) -> None:
        """The layer stays for the next one: napari takes about half a second to take one out and make another."""
        for layer in self._previews():
            layer.visible = False

    def apply(self) -> None:
        """Do what is shown, as one step of the history; after a change of the form, once that is shown."""
        tool, outlook, work = self.tool, self.outlook, self.review.work
        if tool is None or outlook is None or work is None:
            return
        if not self._current:
            self._wanted = True
            return
        if work.moving:
            work.when_still(self.apply)
            return
        self._forget()
        self.form.say("")
        if not work.make(outlook.verdict, by="tool", again=self.refresh) and outlook.verdict.asked is None:
            return
        if not tool.clicks:
            self.close_tool()

    # ------------------------------------------------------------------------------------------------------------- mouse

    def _clicked(self, place: Point) -> None:
        tool = self.tool
        if tool is None:
            return
        if tool.clicks == "hover":
            self.apply()
            return
        self._points = [*self._points, place] if tool.clicks == "points" else [place]
        self._ask()

    def _hovered(self, place: Point) -> None:
        self._points = [place]
        if not self._working:
            self._ask()
        else:
            self._again = True

    def _drawn(self, places: list[Point]) -> None:
        tool = self.tool
        if tool is None:
            return
        if tool.clicks == "line":
            if self._stroke_over:
                self._points, self._stroke_over = [], False
            self._points = [*self._points, *places]
        else:
            self._stroke += places
            self._paint()

    def _stroke_ended(self) -> None:
        self._stroke_over = True
        if self.tool is not None and self.tool.clicks == "line":
            self._ask()
        else:
            self._paint()

    def _paint(self) -> None:
        """Have the next piece of a stroke worked out, and shown; when the stroke has ended, it becomes one change."""
        tool, work = self.tool, self.review.work
        if self._working or tool is None or work is None:
            return
        if not self._stroke:
            return
        if len(self._stroke) == 1 and self._points == self._stroke:
            if self._stroke_over:
                self._stroke, self._points, self._stroke_over = [], [], False
                work.flush()
            return
        piece, self._stroke = self._stroke, self._stroke[-1:]
        self._points = self._stroke
        wished = wish_for(self.review, piece, self.form.values())
        if wished is None:
            return
        _, wish = wished
        rules = work.rules

        def drawn(edit: Edit | None) -> None:
            if edit is not None:
                work.draw(edit, texts.STROKES[tool.name])
            self._paint()

        self._run(lambda: piece_of_stroke(tool, wish, rules), then=drawn, failed=self._cannot)
