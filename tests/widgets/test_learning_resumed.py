"""Learning survives the death of the program: it is offered again with its case, and goes on from its last checkpoint."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from napari_medt.engine.process import WorkerProcess
from napari_medt.widgets.remembered import checkpoint_left, fine_tunings, remember, remembered

WAIT_MS = 120_000


@pytest.mark.slow
def test_learning_that_was_killed_goes_on_from_its_checkpoint(
    viewer, open_dock, cells, tiny_model, tmp_path, qtbot, root
):
    np.save(tmp_path / "picture.npy", cells)
    script = Path(__file__).with_name("_learning_left.py")
    command = [sys.executable, str(script), str(tmp_path / "picture.npy"), str(tmp_path / "told.json")]
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": path}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False, env=environment, cwd=root)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    steps = json.loads((tmp_path / "told.json").read_text())
    assert checkpoint_left()

    viewer.add_image(cells, name="slide")
    dock = open_dock(WorkerProcess("tests.widgets._keen:Keen"))
    offer, events = dock.learn_step.cut_short, []
    add = dock.learn_step.curve.add
    dock.learn_step.curve.add = lambda event: (events.append(event), add(event))
    qtbot.waitUntil(dock.correct_step.offer.isVisible, timeout=WAIT_MS)
    qtbot.waitUntil(lambda: "cut short" in dock.run_step.message.text, timeout=WAIT_MS)
    assert not offer.isVisible(), "its case is not there yet"
    dock.correct_step.offer.accept_button.click()
    qtbot.waitUntil(offer.isVisible, timeout=WAIT_MS)
    assert "slide" in offer.text
    offer.accept_button.click()
    qtbot.waitUntil(lambda: len(events) >= 3, timeout=WAIT_MS)
    assert not offer.isVisible()
    assert dock.run_step.message.text == "", "that it was cut short is no longer said"
    dock.learn_step.stop_button.click()
    qtbot.waitUntil(lambda: "a-tiny@2" in dock.review.cards, timeout=WAIT_MS)
    dock.wait()
    first = events[0]["step"]
    assert first >= steps, f"it went on after step {first - 1} and did not begin anew"
    assert dock.review.cards["a-tiny@2"].notes[0].endswith(f"in {events[-1]['step']} steps.")
    assert not checkpoint_left()
    assert "learning" not in remembered()


@pytest.fixture
def cut(steps_on, worker, cells, until):
    """A corrected case in a new session, after learning from it was cut short."""
    remember(
        learning={
            "learns": "adapters",
            "minutes": 7,
            "name": "scan 0",
            "model": "quick@1",
            "cases": ["scan 0"],
            "hold_out": ["somebody"],
        }
    )
    fine_tunings().mkdir(parents=True)
    (fine_tunings() / "left.pt").touch()
    steps = steps_on(cells)
    until(lambda: bool(steps.learn.cut_short.found))
    return steps


def test_it_is_not_offered_where_nothing_was_left_to_go_on_from(steps_on, worker, cells):
    remember(learning={"learns": "adapters", "minutes": 7, "name": "scan 0", "model": "quick@1", "cases": ["scan 0"]})
    steps = steps_on(cells)
    steps.calm()
    assert not steps.learn.cut_short.found
    assert not any("cut short" in said for said in steps.said)


def paint(steps):
    steps.review.work.mask.paint((5, 5), 1)
    steps.review.work.settle()
    steps.calm()


def test_it_is_offered_with_its_case_and_its_wishes(cut, worker):
    offer = cut.learn.cut_short
    assert any("cut short (scan 0)" in said for said in cut.said)
    assert offer.isHidden()
    paint(cut)
    assert not offer.isHidden()
    offer.accept_button.click()
    cut.calm()
    assert worker.session.learnt_with == [{"learns": "adapters", "minutes": 7}]
    assert cut.cases.hold_out == {"somebody"}
    assert offer.isHidden()
    assert "learning" not in remembered()


def test_it_is_not_offered_with_other_cases_and_may_be_forgotten(cut, cells):
    offer = cut.learn.cut_short
    other = cut.review.viewer.add_image(cells[::-1].copy(), name="other")
    paint(cut)
    cut.review.choose_image(other)
    paint(cut)
    assert offer.isHidden(), "other cases would not go on from that checkpoint"
    cut.review.viewer.layers.remove(other)
    cut.calm()
    cut.learn.refresh()
    assert not offer.isHidden()
    offer.decline_button.click()
    cut.calm()
    assert "learning" not in remembered()
    assert offer.isHidden()


@pytest.mark.parametrize("left", [True, False])
def test_learning_whose_process_died_is_offered_where_it_left_a_checkpoint(steps_on, worker, cells, medt_home, left):
    from napari_medt.core import MedtError

    steps = steps_on(cells)
    paint(steps)
    if left:
        (medt_home / "learning").mkdir(parents=True)
        (medt_home / "learning" / "0.pt").write_bytes(b"")
    worker.session.fail = MedtError("The calculation stopped unexpectedly")
    steps.learn.learn(3)
    steps.calm()
    assert steps.learn.cut_short.isHidden() is not left
    assert ("learning" in remembered()) is left
    assert any("stopped unexpectedly" in said for said in steps.said)
