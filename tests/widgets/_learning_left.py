"""A napari of its own that learns and is then killed; run by `test_learning_resumed`, not collected."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import napari
import numpy as np

from napari_medt.engine.process import WorkerProcess
from napari_medt.widgets.dock import ReviewDock
from napari_medt.widgets.remembered import checkpoint_left

picture, told = sys.argv[1:]
viewer = napari.Viewer(show=True)
viewer.add_image(np.load(picture), name="slide")
dock = ReviewDock(viewer, worker=WorkerProcess("tests.widgets._keen:Keen"))
viewer.window.add_dock_widget(dock)
app = napari.qt.get_qapp()


def until(check):
    limit = time.monotonic() + 150
    while not check():
        if time.monotonic() > limit:
            sys.exit("waited in vain")
        app.processEvents()
        time.sleep(0.002)


dock.wait()
dock.run_step.model_box.setCurrentIndex(dock.run_step.model_box.findData("a-tiny@1"))
dock.run()
dock.wait()
work = dock.review.work
work.mask.paint((40, 40), 1 - int(work.mask.data[40, 40]))
until(lambda: work.edits == 1)
dock.accept()
dock.wait()
dock.learn(minutes=1)
until(lambda: len(dock.learn_step.curve.losses) >= 8 and checkpoint_left())
Path(told).write_text(json.dumps(len(dock.learn_step.curve.losses)))
os.kill(os.getpid(), signal.SIGKILL)
