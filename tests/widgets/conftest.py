"""A viewer, a dock, and something that answers it: quick in a thread, or real in a process of its own."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from napari_medt._system import display_answers
from napari_medt.core import AttentionMap, Cancel, Control, MedtError, Prediction, Volume
from napari_medt.training.gate import changes, judge
from napari_medt.widgets.answers import Ahead, Belief, Block, Found, HeadLine, Question
from napari_medt.widgets.lessons import Compared, LearnAhead, Learnt
from napari_medt.zoo import Intensity, ModelCard

WAIT_MS = 60_000


def card(version: int = 1, *, name: str = "quick") -> ModelCard:
    return ModelCard(
        name=name,
        version=version,
        title="Quick cells",
        description="Finds what is bright.",
        architecture="axial-unet",
        net_options={"img_size": 32, "in_channels": 3, "num_classes": 2},
        classes=("background", "cell"),
        channels="rgb",
        window=(32, 32),
        intensity=Intensity(kind="percentile"),
        licence="BSD-3-Clause",
        limits="Only for tests.",
    )


class QuickSession:
    """What the dock may ask, answered by arithmetic: bright pixels are cells, attention is a square around the point."""

    def __init__(self) -> None:
        self.images: dict[str, Volume] = {}
        self.sent = 0
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.cards = [card()]
        self.fail: MedtError | None = None
        self.learnt: list[Any] = []
        self.learnt_with: list[dict[str, Any]] = []
        self.measured, self.after = 2, 0.8
        self.spared = False  # whether the new version leaves the first held-out case as it was
        self.hints: tuple[Any, ...] = ()
        self.suits: tuple[str, ...] = ("quick@1",)
        self.doubtful: tuple[Any, ...] = ()
        self.wishes: list[dict[str, Any]] = []
        self.ran_with: list[dict[str, Any]] = []
        self.questions: list[Question] = []
        self.taken_up: list[tuple[str, Any]] = []
        self.checked: list[tuple[Question, int]] = []
        self.verdict = "chance"

    def warm_up(self) -> dict[str, Any]:
        return {"devices": ["cpu"], "auto": "cpu"}

    def put_image(self, token: str, volume: Volume, fixes: tuple[Any, ...] = ()) -> None:
        self.sent += 1
        self.fixes = fixes
        self.images[token] = volume

    def _missing(self, token: str) -> bool:
        return token not in self.images

    def _work(self, progress: Callable[..., None], cancel: Cancel) -> None:
        self.entered.set()
        for done in range(1, 6):
            while not self.gate.wait(0.01):
                cancel.check()
            cancel.check()
            progress(done, 5, f"Window {done} of 5")
        if self.fail is not None:
            raise self.fail

    def suiting(self, token):
        if self._missing(token):
            return "napari-medt: the image has not been sent"
        return self.suits

    def look_ahead(self, token, model_key, device="auto", **wishes):
        if self._missing(token):
            return "napari-medt: the image has not been sent"
        self.wishes.append(wishes)
        return Ahead(40, 310.0, None, self.hints)

    def predict(self, token, model_key, device="auto", *, uncertainty=False, roi=None, progress, cancel, **wishes):
        if self._missing(token):
            return "napari-medt: the image has not been sent"
        self._work(progress, cancel)
        volume = self.images[token]
        grey = volume.array.mean(0)
        labels = (grey > grey.mean()).astype(np.uint8)
        unsure = np.zeros(labels.shape, np.float32) if uncertainty else None
        found = Prediction(labels, volume.geometry, ("background", "cell"), uncertainty=unsure, model=model_key)
        if roi is not None:
            inside = np.zeros_like(labels)
            inside[roi] = labels[roi]
            labels = inside
            found = replace(found, labels=labels)
        self.ran_with.append({"uncertainty": uncertainty, "roi": roi, **wishes})
        return Found(found, [1 - float(labels.mean()), float(labels.mean())], self.doubtful)

    def take_up(self, token, model_key, plane=None):
        if self._missing(token):
            return "napari-medt: the image has not been sent"
        self.taken_up.append((model_key, plane))
        return True

    def sources(self, model_key, device="auto"):
        return (
            Block("global.layer1.0", "row and column", 8, 1),
            Block("local.layer1.0", "row and column", 8, 1),
            Block("level2", "gate", 1, 2),
        )

    def prepare_attention(self, token, model_key, device="auto", *, at, progress, cancel):
        return True

    def look(self, token, model_key, device, question, *, progress, cancel):
        if self._missing(token):
            return "napari-medt: the image has not been sent"
        self.questions.append(question)
        volume, source, head = self.images[token], question.source, question.head
        dims = volume.geometry.ndim
        if question.what != "point":
            self._work(progress, cancel)
            data = np.ones(volume.spatial_shape, np.float32)
            kind = {"whole": "received", "piece": "structure"}.get(question.what, question.what)
            if question.what == "right and wrong":
                made = AttentionMap(data, volume.geometry, source, "right", head, caption="There.", even=1.0)
                return [replace(made, data=-data, kind="difference"), made, replace(made, kind="wrong")]
            if question.against:
                kind, data = "difference", data - 2
            return [AttentionMap(data, volume.geometry, source, kind, head, caption="There.", even=1.0)]
        corner, step = np.zeros(dims), np.asarray(volume.spatial_shape) / 8
        if source.startswith("local"):
            step = step / 4
            corner = np.asarray(question.at) // (8 * step) * (8 * step)
        geometry = volume.geometry.part(corner + (step - 1) / 2, step=tuple(step))
        data = np.zeros((8,) * dims, np.float32)
        at = ((np.asarray(question.at) + 0.5 - corner) // step).astype(int)
        data[tuple(at)] = 1.0 if head is None else 0.5
        extras = {
            "window": np.array([corner - 0.5, corner + 8 * step - 0.5]),
            "targets": np.array([np.zeros(dims), np.asarray(question.at)]),
            "shares": np.array([0.5, 0.4]),
        }
        made = AttentionMap(data, geometry, source, "row and column", head, question.at, "Here.", 0.1, extras)
        return [made, replace(made, kind="row", caption="The row.")]

    def compare_heads(self, token, model_key, device="auto", *, at, progress, cancel):
        if self._missing(token):
            return "napari-medt: the image has not been sent"
        small = np.eye(8, dtype=np.uint8)
        gate = HeadLine("level2", "gate", 2, 0, None, None, "mm", None, small)
        heads = [
            HeadLine("global.layer1.0", "row and column", 1, head, 0.9 - head / 10, 3.0 + head, "mm", 0.5, small)
            for head in range(3)
        ]
        return (*heads, gate)

    def check_map(self, token, model_key, device, question, *, structure, progress, cancel):
        if self._missing(token):
            return "napari-medt: the image has not been sent"
        self._work(progress, cancel)
        self.checked.append((question, structure))
        return Belief("cell", 0.01, (-0.1, 0.1), (-0.2, 0.2), self.verdict, "This map does no better than chance.")

    def learn_ahead(self, who, model_key, device="auto", *, learns="everything"):
        self.who = who
        held_out = sum(one.hold_out for one in who)
        return LearnAhead(len(who) - held_out, held_out, 2, 0.5, 310.0)

    def learn(self, lessons, model_key, device="auto", *, learns, minutes, progress, cancel, emit):
        self._work(progress, cancel)
        for step in range(1, 6):
            cancel.wait()
            if cancel.is_stopped():
                break
            emit({"step": step, "steps": 5, "loss": 1 / step, "training": {"cell": step / 6}})
        emit({"step": 5, "steps": 5, "validation": {"cell": 0.8}})
        self.learnt.append(lessons)
        self.learnt_with.append({"learns": learns, "minutes": minutes})
        self.cards.append(card(len(self.cards) + 1))
        return Learnt(self.cards[-1].key, ("Learnt from 1 corrected image in 5 steps.",))

    def compare(self, lessons, old, new, device="auto", *, progress, cancel):
        self._work(progress, cancel)
        before = [{("cell", "dice"): 0.5}] * self.measured
        after = [{("cell", "dice"): self.after}] * self.measured
        if self.spared:
            after[0] = before[0]
        outside = changes(before, after)
        here = changes([{("cell", "dice"): 0.5}], [{("cell", "dice"): 0.9}])
        current = next(lesson for lesson in lessons if lesson.who.current)
        drawn = (np.roll(current.labels, 4, axis=-1), current.labels)
        return Compared(old, new, outside, here, judge(outside), (current.labels > 0).astype(np.uint8), drawn)


class QuickCall:
    def __init__(self) -> None:
        self.control = Control()
        self._ended = threading.Event()
        self._functions: list[Callable[[Any], None]] = []
        self.value: Any = None
        self.error: Exception | None = None

    def cancel(self) -> None:
        self.control.set()

    def pause(self) -> None:
        self.control.pause()

    def go_on(self) -> None:
        self.control.go_on()

    def stop(self) -> None:
        self.control.stop()

    def result(self, timeout: float | None = None) -> Any:
        assert self._ended.wait(timeout)
        if self.error is not None:
            raise self.error
        return self.value

    def add_done_callback(self, function: Callable[[Any], None]) -> None:
        if self._ended.is_set():
            function(self)
        else:
            self._functions.append(function)

    def end(self) -> None:
        self._ended.set()
        for function in self._functions:
            function(self)


class QuickWorker:
    """Has the doors of `WorkerProcess`, with a thread in the place of a process."""

    def __init__(self) -> None:
        self.session = QuickSession()
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Serve, also again after `close`."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, daemon=True)
            self._thread.start()

    def close(self) -> None:
        self.session.gate.set()
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(10)
            self._thread = None

    def call(self, method, *args, on_progress=None, on_event=None, **options):
        call = QuickCall()
        self._queue.put((call, method, args, options, on_progress, on_event))
        return call

    def _serve(self) -> None:
        while (job := self._queue.get()) is not None:
            call, method, args, options, on_progress, on_event = job
            function = getattr(self.session, method)
            names = function.__code__.co_varnames[: function.__code__.co_argcount + function.__code__.co_kwonlyargcount]
            given = {
                "progress": on_progress or (lambda *_: None),
                "cancel": call.control,
                "emit": on_event or (lambda _: None),
            }
            options.update({name: value for name, value in given.items() if name in names})
            try:
                call.value = function(*args, **options)
            except MedtError as error:
                call.error = error
            call.end()


@pytest.fixture
def bridge(qapp: Any) -> Iterator[Any]:
    from napari_medt.widgets.bridge import Bridge

    made = Bridge()
    yield made
    made.close()


@pytest.fixture
def make_editor(bridge: Any) -> Iterator[Callable[..., Any]]:
    """Return a function that makes a mask with its editor, without a window."""
    from napari.components import ViewerModel

    from napari_medt.widgets import layers
    from napari_medt.widgets.mask_editor import MaskEditor

    opened = []

    def make(
        shape: tuple[int, ...] = (40, 50), classes: tuple[str, ...] = ("background", "cell"), **options: Any
    ) -> Any:
        model = ViewerModel()
        image = model.add_image(np.zeros(shape, np.uint8))
        mask = layers.OurLayers(model).add_mask(image, np.zeros(shape, np.uint8), classes=len(classes))
        editor = MaskEditor(layers.take(image), "id", mask, bridge, classes, **options)
        editor.model, editor.image = model, image
        opened.append(editor)
        return editor

    yield make
    for editor in opened:
        editor.close()


@pytest.fixture
def until(qtbot: Any) -> Callable[..., None]:
    def wait(check: Callable[[], bool]) -> None:
        qtbot.waitUntil(check, timeout=20_000)

    return wait


@pytest.fixture
def cells(rng: np.random.Generator) -> np.ndarray:
    """A picture of bright discs, 96 x 128."""
    rows, columns = np.mgrid[:96, :128]
    picture = np.full((96, 128), 20.0)
    for y, x, radius in ((20, 30, 8), (60, 40, 11), (40, 90, 13), (78, 104, 7)):
        picture[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = 180
    return np.clip(picture + rng.normal(0, 8, picture.shape), 0, 255).astype(np.uint8)


@pytest.fixture
def viewer(request: pytest.FixtureRequest) -> Any:
    """A real window where there is a display that can draw."""
    if not display_answers():
        pytest.skip("needs a display; `make test` brings a virtual one")
    made = request.getfixturevalue("make_napari_viewer")(show=True)
    made.window.resize(900, 640)
    return made


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[QuickWorker]:
    made = QuickWorker()
    monkeypatch.setattr("napari_medt.zoo.list_models", lambda: list(made.session.cards))
    yield made
    made.close()


@pytest.fixture
def open_dock(viewer: Any, qtbot: Any) -> Iterator[Callable[..., Any]]:
    """Open the dock as napari does, and wait until it knows its models and devices."""
    from napari_medt.widgets.dock import ReviewDock

    opened = []

    def open_one(worker: Any = None) -> Any:
        dock = ReviewDock(viewer, worker=worker)
        opened.append(dock)
        viewer.window.add_dock_widget(dock, name="MedT Review", area="right")
        qtbot.waitUntil(lambda: bool(dock.review.cards) and dock.run_step.device_box.count() > 1, timeout=WAIT_MS)
        return dock

    yield open_one
    for dock in opened:
        dock.close_review()


@pytest.fixture
def dock(viewer: Any, worker: QuickWorker, open_dock: Callable[..., Any], cells: np.ndarray, qtbot: Any) -> Any:
    """The dock on a picture of cells, with the quick worker."""
    viewer.add_image(cells, name="cells", scale=(0.5, 0.25), translate=(3, 4), units=("um", "um"))
    made = open_dock(worker)
    qtbot.waitUntil(lambda: made.review.work is not None and made.run_step.run_button.isEnabled(), timeout=WAIT_MS)
    return made


@pytest.fixture
def walk(qtbot: Any) -> SimpleNamespace:
    """Short words for what a user does."""

    def run(dock: Any) -> np.ndarray:
        dock.run_step.run()
        qtbot.waitUntil(lambda: not dock.review.busy, timeout=WAIT_MS)
        return dock.review.work.mask.data

    def paint(dock: Any, at: tuple[int, ...], size: int = 6, label: int = 1) -> None:
        work = dock.review.work
        before = work.edits
        dock.correct_step.use("paint")
        work.mask.brush_size = size
        work.mask.paint(at, label)
        qtbot.waitUntil(lambda: work.edits == before + 1, timeout=WAIT_MS)

    def undo(dock: Any) -> None:
        steps = dock.review.work.depth
        dock.correct_step.undo()
        qtbot.waitUntil(lambda: dock.review.work.depth == steps - 1, timeout=WAIT_MS)

    def redo(dock: Any) -> None:
        steps = dock.review.work.depth
        dock.correct_step.redo()
        qtbot.waitUntil(lambda: dock.review.work.depth == steps + 1, timeout=WAIT_MS)

    return SimpleNamespace(run=run, paint=paint, undo=undo, redo=redo)


@pytest.fixture
def steps_on(qtbot: Any, worker: QuickWorker, until: Callable[..., None]) -> Iterator[Callable[..., Any]]:
    """Opens the steps of the dock without a window, as often as one likes, each time as a program begun anew."""
    from napari.components import ViewerModel

    from napari_medt.widgets.casework import Casework
    from napari_medt.widgets.compare_step import CompareStep
    from napari_medt.widgets.learn_step import LearnStep
    from napari_medt.widgets.look_step import LookStep
    from napari_medt.widgets.review import Review
    from napari_medt.widgets.run_step import RunStep

    opened: list[Any] = []

    def close() -> None:
        for steps in opened:
            steps.look.leave()
            steps.cases.close()
            steps.review.close()
        opened.clear()

    def open_it(*pictures: np.ndarray) -> Any:
        close()
        worker.start()
        worker.session.images.clear()
        model = ViewerModel()
        for number, picture in enumerate(pictures):
            model.add_image(picture, name=f"scan {number}")
        review = Review(model, worker=worker)
        said: list[str] = []
        cases = Casework(review)
        review.said.connect(lambda step, text, kind: said.append(text))
        steps = SimpleNamespace(review=review, cases=cases, run=RunStep(review), look=LookStep(review), said=said)
        steps.learn, steps.compare = LearnStep(review, cases), CompareStep(review, cases)
        for step in (steps.run, steps.look, steps.learn, steps.compare):
            qtbot.addWidget(step)
        opened.append(steps)
        steps.calm = lambda: until(
            lambda: bool(not review.busy and review.bridge.idle and review.changes.idle and review.cards)
        )
        review.choose_image(model.layers[0])
        review.start()
        steps.calm()
        return steps

    yield open_it
    close()


class Probe:
    """Measures the longest time in which the window's event loop did nothing else."""

    def __init__(self) -> None:
        from qtpy.QtCore import QTimer

        self._last = time.perf_counter()
        self.longest_s = 0.0
        self._timer = QTimer()
        self._timer.setInterval(5)
        self._timer.timeout.connect(self._tick)
        self._timer.start()

    def restart(self) -> None:
        self._last, self.longest_s = time.perf_counter(), 0.0

    def stop(self) -> None:
        self._timer.stop()

    def _tick(self) -> None:
        now = time.perf_counter()
        self.longest_s = max(self.longest_s, now - self._last)
        self._last = now


@pytest.fixture
def probe(qapp: Any) -> Iterator[Probe]:
    made = Probe()
    yield made
    made.stop()


@pytest.fixture
def tiny_model(medt_home: Path) -> str:
    """A small network with fixed random weights among the user's models; returns its key."""
    import torch

    from napari_medt.nets import create_net
    from napari_medt.zoo import models_folder, save_model

    torch.manual_seed(3)
    options = {"img_size": 32, "in_channels": 3, "num_classes": 2}
    made = card().model_copy(update={"name": "a-tiny", "title": "A tiny network"})
    save_model(models_folder() / "a-tiny" / "v1", made, create_net("axial-unet", **options).eval())
    return made.key


@pytest.fixture(scope="session")
def slowdown() -> Callable[[], float]:
    """How many times longer than alone a thread takes now, because other programs want the processor too; 1 at rest."""

    def measure() -> float:
        wall, own = time.perf_counter(), time.thread_time()
        while time.thread_time() - own < 0.15:
            pass
        return max(1.0, (time.perf_counter() - wall) / 0.15)

    return measure
