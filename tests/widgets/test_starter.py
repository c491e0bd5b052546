"""The button that becomes Cancel, which Run, Learn and Compare share."""

from __future__ import annotations

import pytest

from napari_medt.widgets import texts
from tests.widgets.conftest import WAIT_MS


@pytest.fixture
def steps(steps_on, worker, cells):
    made = steps_on(cells)
    made.run.run()
    made.calm()
    made.review.work.mask.paint((5, 5), 1)
    made.review.work.settle()
    made.calm()
    worker.session.cards.append(worker.session.cards[0].model_copy(update={"version": 2}))
    made.review.refresh_models()
    made.calm()
    made.compare.version_box.setCurrentIndex(made.compare.version_box.findData("quick@2"))
    return made


@pytest.mark.parametrize("what", ["run", "learn", "compare"])
def test_a_button_starts_and_cancels(steps, worker, what, qtbot):
    starter = {"run": steps.run, "learn": steps.learn, "compare": steps.compare}[what].starter
    words, tip = starter.button.text(), starter.button.toolTip()
    worker.session.gate.clear()
    worker.session.entered.clear()
    starter.button.click()
    qtbot.waitUntil(worker.session.entered.is_set, timeout=WAIT_MS)
    others = [step.starter.button for step in (steps.run, steps.learn, steps.compare) if step.starter is not starter]
    assert [other.isEnabled() for other in others] == [False, False]
    assert (starter.button.text(), starter.button.isEnabled()) == (texts.CANCEL, True)
    assert starter.button.toolTip() != tip
    assert not starter.progress.isHidden()
    starter.button.click()
    steps.review.mask_changed.emit()
    assert starter.button.text() == texts.CANCELLING
    assert not starter.button.isEnabled(), "also after something else changed"
    qtbot.waitUntil(lambda: not steps.review.busy, timeout=WAIT_MS)
    steps.calm()
    assert (starter.button.text(), starter.button.toolTip(), starter.button.isEnabled()) == (words, tip, True)
    assert starter.progress.isHidden()
