"""A napari of its own that paints and is then killed; run by `test_recovery`, not collected."""

from __future__ import annotations

import os
import signal
import sys
import time

import napari
import numpy as np

from napari_medt.widgets.dock import ReviewDock

picture, expected = sys.argv[1:]
viewer = napari.Viewer(show=True)
viewer.add_image(np.load(picture), name="slide")
dock = ReviewDock(viewer)
viewer.window.add_dock_widget(dock)
app = napari.qt.get_qapp()


def until(check):
    limit = time.monotonic() + 60
    while not check():
        if time.monotonic() > limit:
            sys.exit("waited in vain")
        app.processEvents()
        time.sleep(0.002)


until(lambda: dock.review.work is not None)
work = dock.review.work
model_made = (np.indices(work.shape).sum(0) % 7 == 0).astype(np.uint8)
work.replace(model_made, "model run", model_key="quick@1")
dock.correct_step.use("paint")
for number, at in enumerate(((10, 10), (30, 40), (50, 90), (70, 20)), start=2):
    work.mask.paint(at, 1)
    until(lambda number=number: work.depth == number)
dock.correct_step.undo()
until(lambda: work.depth == 4)
# What is on disk is what was said to be kept: wait for that, then die without a chance to tidy up.
until(lambda: work.kept_words and dock.review.changes.idle)
np.save(expected, work.mask.data)
with work.mask.block_history():  # in the middle of a stroke, whose first touch is not finished
    work.mask.paint((5, 120), 1)
    os.kill(os.getpid(), signal.SIGKILL)
