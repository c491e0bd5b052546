"""Images opened as cases: one file, or a folder that is gone through case by case, the next read ahead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_medt.cases import former_names
from napari_medt.core import Cancel, MedtError
from napari_medt.widgets import layers, texts
from napari_medt.widgets._compat import remove_together
from napari_medt.widgets.bridge import Bridge
from napari_medt.widgets.casework import Casework
from napari_medt.widgets.lessons import Lesson, Who
from napari_medt.widgets.refilled import fits
from napari_medt.widgets.remembered import remember
from napari_medt.widgets.runs import REGION
from napari_medt.widgets.screens import screen_of, show_as

if TYPE_CHECKING:
    from napari_medt._napari_io.finding import LayerData
    from napari_medt.cases import Item, Screen, Worklist
    from napari_medt.core import Volume
    from napari_medt.widgets.review import Review
    from napari_medt.widgets.runs import Ran

    Read = tuple[list[Any], Screen | None]


class OpenCases(QObject):
    """Puts one case of a worklist into the viewer at a time.

    Signals
    -------
    changed
        The list, its order, the case that is open, or a state changed.
    """

    changed = Signal()

    def __init__(self, review: Review, cases: Casework) -> None:
        super().__init__()
        self.review, self.cases = review, cases
        self.worklist: Worklist | None = None
        self.key = ""
        self.opening = ""
        self._cancel = Cancel()
        self._reading = Bridge(self)  # so that a large image does not keep strokes from being saved
        self.items: tuple[Item, ...] = ()
        self._reading.aside(layers.warm_up)
        self._ahead: dict[str, Read] = {}
        self._shown: list[Any] = []
        self._told: tuple[str, ...] = ()
        self._waiting: Callable[[], Any] | None = None
        self._anew = False
        self._going: Screen | None = None  # how the case was shown when its picture began to go, as the viewer closes
        cases.listed = self._accepted
        cases.decided.connect(lambda _: self.note_state())
        cases.state_changed.connect(self.note_state)
        review.ran_on.connect(self._note_doubt)
        review.busy_changed.connect(lambda _: review.bridge.post(self._go_ahead))  # after what a job that ended brings
        cases.exported.connect(self._go_ahead)
        review.viewer.layers.events.removing.connect(self._removing)

    @property
    def busy(self) -> bool:
        """Whether something is being opened or read ahead."""
        return bool(self.opening) or not self._reading.idle

    @property
    def place(self) -> int:
        """Which of the `items` is open, from 0; -1 for none."""
        return next((at for at, item in enumerate(self.items) if item.key == self.key), -1)

    @property
    def left(self) -> list[Item]:
        """Cases that can be read and are not accepted, in their order."""
        return [item for item in self.items if item.state != "accepted" and not item.problem]

    @property
    def following(self) -> Item | None:
        """What comes next: where a case that was decided on moves in the order, the first that is left, else the one after it."""
        moves = self.worklist is not None and self.worklist.order != "name"
        if moves and self.cases.state in ("accepted", "second look"):
            left = next((item for item in self.left if item.key != self.key), None)
            if left is not None:
                return left
        return next((item for item in self.items[self.place + 1 :] if not item.problem), None)

    def close(self) -> None:
        """Keep how the case is shown, and let other windows have the folder."""
        worklist, self.worklist = self.worklist, None
        self.review.viewer.layers.events.removing.disconnect(self._removing)
        if worklist is not None:
            key, screen = self.key, self._screen() if self.key else None

            def leave() -> None:
                if screen is not None and not worklist.read_only:
                    worklist.keep_screen(key, screen)
                worklist.close()

            self.review.changes.aside(leave)
        self._cancel.set()
        self._reading.close()

    def _screen(self) -> Screen | None:
        """How the case is shown, or was as long as its picture was there."""
        there = any(layer in self.review.viewer.layers for layer in self._shown)
        return screen_of(self.review) if there else self._going

    def _removing(self, event: Any) -> None:
        if self.review.viewer.layers[event.index] in self._shown:
            self._going = self._screen()

    # -------------------------------------------------------------------------------------------------------------- open

    def open_path(self, path: str | Path) -> None:
        """Open a folder of images as a list of cases, or one image."""
        place = Path(path).expanduser()
        inside = [item for item in self.items if item.image.path == place.absolute()]
        if inside:
            self.go(inside[0].key)
        elif place.is_dir() and not place.name.lower().endswith(".zarr"):
            self.open_folder(place)
        else:
            self._open_file(place)

    def open_folder(self, folder: Path) -> None:
        """Open a folder of images, and the case that was open last or the first that is left; the open one is read anew."""
        from napari_medt.cases import Worklist

        if not self._may_open():
            return
        known = self.worklist

        def look() -> tuple[Worklist, tuple[Item, ...], Item | None]:
            if known is not None and known.folder == folder.expanduser().absolute():
                known.refresh()
                return known, known.items, known.current
            worklist = Worklist.open(folder)
            return worklist, worklist.items, worklist.current

        def opened(found: tuple[Worklist, tuple[Item, ...], Item | None]) -> None:
            worklist, items, current = found
            self.opening = ""
            self.leave()
            if self.worklist is not None and self.worklist is not worklist:
                self.review.changes.aside(self.worklist.close)
            self.worklist, self.items, self._ahead = worklist, items, {}
            self._anew = True
            self.review.bridge.aside(lambda: remember(folder=str(worklist.folder)))
            self._told = ()
            self._tell_notes()
            self.changed.emit()
            self.go((current or (self.left or items)[0]).key)

        self._open(folder.name, look, opened)

    def _open_file(self, place: Path) -> None:
        from napari_medt._napari_io.reading import name_of

        if not self._may_open():
            return

        def read_it() -> list[Any]:
            from napari_medt.io import read

            return _as_layers(read(place), name_of(place))

        def opened(made: list[Any]) -> None:
            self.opening = ""
            for data, options, _ in made:
                self.review.viewer.add_image(data, **options)
            self.review.choose_image(self.review.viewer.layers[-len(made)])
            self.changed.emit()

        self._open(place.name, read_it, opened)

    def _open(
        self,
        name: str,
        work: Callable[[], Any],
        then: Callable[[Any], Any],
        *,
        otherwise: Callable[[], Any] = lambda: None,
    ) -> None:
        def failed(error: MedtError) -> None:
            self.opening = ""
            self.review.said.emit("run", str(error), "error")
            self.changed.emit()
            otherwise()

        def arrived(found: Any) -> None:
            if self._busy_now:  # begun while this was being read: its picture stays until it has ended
                self._waiting = lambda: arrived(found)
                self.review.said.emit("run", texts.OPENS_LATER.format(name=name), "plain")
            else:
                then(found)

        self.opening = name
        self.changed.emit()
        self._reading.aside(work, then=arrived, failed=failed)

    @property
    def _busy_now(self) -> bool:
        """Whether something is under way that needs the picture, or the case, that is open."""
        return bool(self.review.busy or self.cases.exports)

    def _may_open(self) -> bool:
        """Whether something else can be opened now; says why not."""
        free = not self.opening and not self._busy_now
        if not free:
            self.review.said.emit("run", texts.BUSY_NOW, "plain")
        return free

    def _go_ahead(self) -> None:
        """Show what was read while something else was under way, once that has ended."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self.review.said.emit("run", "", "plain")  # it is no longer to come
            waiting()

    def _tell_notes(self) -> None:
        """Say what is to be known of the folder, as far as that was not said."""
        notes = () if self.worklist is None else self.worklist.notes
        new = [note for note in notes if note not in self._told]
        self._told = notes
        if new:
            self.review.said.emit("run", " ".join(new), "plain")

    # ---------------------------------------------------------------------------------------------------------------- go

    def step(self, by: int) -> None:
        """Open the next case, or another so many places away; what cannot be read is passed over."""
        at = self.place + by
        while 0 <= at < len(self.items) and self.items[at].problem:
            at += by
        wanted = self.following if by == 1 else self.items[at] if 0 <= at < len(self.items) else None
        if wanted is not None and not self.opening:
            self.go(wanted.key)

    def go(self, key: str) -> None:
        """Put a case into the viewer, in the place of the one that is there."""
        worklist = self.worklist
        if worklist is None or key == self.key or not self._may_open():
            return
        work = self.review.work
        if work is not None and work.moving:  # what waits for that comes first
            work.when_still(lambda: self.go(key))
            return
        item = next(item for item in self.items if item.key == key)
        ready = self._ahead.pop(key, None)

        def shown(found: Read) -> None:
            self.opening = ""
            self._show(item, *found)

        def found() -> Read:
            current = ready is not None and worklist.is_as_read(key)
            return ready if current else _read(worklist, item, self._cancel)

        self._open(item.name, found, shown, otherwise=self._pass_over)

    def _pass_over(self) -> None:
        """Take up what could not be read; where no case is open yet, the first that is left comes in its place."""

        def go_on() -> None:
            if self.left and not self.key:
                self.go(self.left[0].key)

        self._note(lambda: None, then=go_on)

    def _show(self, item: Item, made: list[Any], screen: Screen | None) -> None:
        worklist, viewer, review = self.worklist, self.review.viewer, self.review
        if worklist is None:
            return
        shown = self._shown
        goes_on = len(shown) == len(made) and all(
            layer in viewer.layers and fits(layer, data, options)
            for layer, (data, options, _) in zip(shown, made, strict=True)
        )
        self.leave(into=made if goes_on else ())
        self.key, self._going = item.key, None
        self._shown = shown if goes_on else [viewer.add_image(data, **options) for data, options, _ in made]
        for layer in self._shown:
            review.keep_case_with(layer, lambda volume: worklist.open_case(item.key, volume))
        viewer.layers.selection.active = self._shown[0]
        viewer.reset_view()
        if screen is not None and self._anew:
            review.go_on_with(screen.model)
        self._anew = False
        review.choose_image(self._shown[0])
        remove_together(viewer, review.layers.unused())
        if screen is not None:
            show_as(review, screen)
        else:
            viewer.dims.current_step = tuple((steps - 1) // 2 for steps in viewer.dims.nsteps)
        self._tell_notes()
        self.changed.emit()
        self._read_ahead()

    def _read_ahead(self) -> None:
        """Read the next case that is left while this one is looked at."""
        worklist = self.worklist
        following = [item for item in self.items[self.place + 1 :] if item.state != "accepted" and not item.problem]
        if worklist is None or not following or following[0].key in self._ahead:
            return
        item = following[0]

        def keep(found: Read) -> None:
            if worklist is self.worklist:
                self._ahead = {item.key: found}

        self._reading.aside(
            lambda: _read(worklist, item, self._cancel), then=keep
        )  # what cannot be read is told when it is opened

    def leave(self, into: Sequence[LayerData] = ()) -> None:
        """Take the case that is open out of the viewer; its mask and how it was shown are kept.

        Parameters
        ----------
        into
            What its image layers are to show from now on, where they stay.
        """
        review, worklist, key = self.review, self.worklist, self.key
        shown, self._shown, self.key = self._shown, [], ""
        viewer = review.viewer
        there = [layer for layer in shown if layer in viewer.layers]
        if not there or worklist is None:
            return
        screen = screen_of(review)
        for image, work in review.works:
            if image in there:
                self.cases.log_seen(work)
        if into:
            over = [
                layer for image, made in zip(there, into, strict=True) for layer in review.show_another(image, made)
            ]
        else:
            over = [*there, *review.layers.over({layers.identity(layer) for layer in there})]
        remove_together(viewer, over)

        def left() -> None:
            worklist.keep_screen(key, screen)
            worklist.update(key)

        self._note(left)

    # -------------------------------------------------------------------------------------------------------------- list

    def sort(self, order: Any) -> None:
        """Order the list by name, uncertainty or state."""
        worklist = self.worklist
        if worklist is not None:
            self._note(lambda: worklist.sort(order))

    def note_state(self) -> None:
        """Take the state of the case that is open over into the list."""
        worklist, key = self.worklist, self.key
        if worklist is not None and key:
            self._note(lambda: worklist.update(key))

    def _note_doubt(self, ran: Ran) -> None:
        """Take over how unsure the model that ran was of the whole case, which the list can be ordered by."""
        worklist, key, run, values = self.worklist, self.key, ran.run, ran.uncertainty
        if worklist is not None and key and values is not None and REGION not in run.settings:
            self._note(
                lambda: worklist.keep_doubt(
                    key, float(values.mean()), model=run.model, weights_sha256=run.weights_sha256
                )
            )

    def _note(self, change: Callable[[], Any], *, then: Callable[[], Any] = lambda: None) -> None:
        """Change the list's notes after all that is kept of the cases so far, and show it as it is then."""
        worklist = self.worklist

        def noted() -> tuple[Item, ...]:
            change()
            return worklist.items

        def show(items: tuple[Item, ...]) -> None:
            if worklist is self.worklist:
                self.items = items
                self.changed.emit()
                then()

        self.review.changes.aside(noted, then=show, failed=self._failed)

    def _accepted(self) -> list[Lesson]:
        """Accepted cases of the folder that are not open."""
        worklist = self.worklist
        if worklist is None:
            return []
        return [
            Lesson(
                Who(
                    item.name,
                    item.patient,
                    hold_out=item.patient in self.cases.hold_out,
                    former=former_names(item.image.path, item.patient),
                ),
                path=item.image.path,
                choose=item.image.choose,
                root=worklist.cases_folder,
            )
            for item in self.items
            if item.state == "accepted" and item.key != self.key
        ]

    def _failed(self, error: MedtError) -> None:
        self.review.said.emit("run", str(error), "error")


def _read(worklist: Worklist, item: Item, cancel: Cancel) -> Read:
    return _as_layers(worklist.load(item.key, cancel=cancel), item.name), worklist.screen(item.key)


def _as_layers(volume: Volume, name: str) -> list[Any]:
    from napari_medt._napari_io.as_layers import image_layers

    return image_layers(volume, name)[0]
