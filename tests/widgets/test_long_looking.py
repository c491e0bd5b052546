"""Clicking about for long: nothing grows, and nothing goes wrong unseen."""

from __future__ import annotations

import gc

import numpy as np
import psutil
import pytest
from napari.utils.notifications import NotificationSeverity, notification_manager

from napari_medt._system import display_answers

SHAPE = (20, 36, 30)
ACTIONS, SETTLED = 300, 100
MOST_MB = 8
"""Each process may grow by so much in 200 actions; one map of the whole scan kept at each of them would be 17 MB."""

WAIT_MS = 240_000
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not display_answers(), reason="needs a display; `make slow` brings a virtual one"),
]


def test_looking_about_for_long_takes_no_more_memory(viewer, open_dock, rng, qtbot, record_property):
    """In the real window with the real calculation process: clicks, heads, layers and slices in any order, also overtaking."""
    viewer.add_image(rng.integers(0, 200, SHAPE).astype(np.uint8), name="scan")
    dock = open_dock()
    box, look = dock.run_step.model_box, dock.look_step
    box.setCurrentIndex(box.findData("unetr-hippocampus@1"))
    qtbot.waitUntil(lambda: dock.review.model_key == box.currentData(), timeout=WAIT_MS)
    qtbot.waitUntil(dock.run_step.run_button.isEnabled, timeout=WAIT_MS)
    dock.run()
    dock.wait()
    qtbot.waitUntil(lambda: look.ready, timeout=WAIT_MS)
    look.pick_button.click()
    image = dock.review.image

    def click():
        at = (look.looking.place_shown()[0], *rng.integers(0, SHAPE[1:]))
        look.pick_world(tuple(image.data_to_world(at)))

    actions = {
        "click": click,
        "source": lambda: look.step_source(int(rng.choice((-1, 1)))),
        "head": lambda: look.step_head(int(rng.choice((-1, 1)))),
        "slice": lambda: viewer.dims.set_current_step(0, int(rng.integers(SHAPE[0]))),
        "part": lambda: look.part_box.setCurrentIndex(int(rng.integers(max(1, look.part_box.count())))),
        "again": lambda: look.pick_button.click() if not look.pick_button.isChecked() else None,
        "hide": lambda: setattr(viewer.layers[-1], "visible", not viewer.layers[-1].visible),
        "whole": look.show_mean,
    }
    shares = np.array([8, 4, 4, 6, 1, 1, 1, 0.3])
    names = rng.choice(list(actions), ACTIONS, p=shares / shares.sum())
    processes = [psutil.Process(), psutil.Process(dock.review.client.worker.pid)]
    memory_mb, known, layers = {}, len(notification_manager.records), None
    for number, name in enumerate(names, start=1):
        actions[name]()
        if rng.random() < 0.8:  # else the next one overtakes it
            qtbot.waitUntil(lambda: look.looking._pending is None and look.looking._next is None, timeout=WAIT_MS)
        assert look.message.kind != "error", (number, name, look.message.text)
        if number in (SETTLED, ACTIONS):
            qtbot.waitUntil(lambda: look.looking._pending is None and look.looking._next is None, timeout=WAIT_MS)
            gc.collect()
            memory_mb[number] = [process.memory_info().rss / 2**20 for process in processes]
            layers = layers or len(viewer.layers)
    seen = notification_manager.records[known:]
    assert not [note.message for note in seen if note.severity >= NotificationSeverity.WARNING]
    assert len(viewer.layers) == layers
    grown = [after - before for before, after in zip(memory_mb[SETTLED], memory_mb[ACTIONS], strict=True)]
    record_property("grown_mb", grown)
    assert max(grown) < MOST_MB, f"the window and the calculation grew by {grown} MB"
