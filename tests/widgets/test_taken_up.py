"""A mask of an earlier session is gone on with where it was left: with its model, its names, its doubts, and no new run."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medt.widgets.answers import Doubt, Hint
from napari_medt.widgets.texts import MODEL_CHANGED, MODEL_GONE, MODEL_OTHER_VERSION
from tests.widgets.conftest import card


@pytest.fixture
def picture(cells):
    return np.stack([cells] * 4)


@pytest.fixture
def left(steps_on, worker, picture):
    """A mask that was run in coronal slices, with doubts, and corrected; the session is over."""
    worker.session.doubtful = (Doubt((1.0, 60.0, 90.0), 30.0, 0.6, "cell"),)
    steps = steps_on(picture)
    steps.run.uncertainty.setChecked(True)
    steps.run.more.plane_box.setCurrentIndex(steps.run.more.plane_box.findData("coronal"))
    steps.run.more.mirror.setChecked(True)
    hint = Hint("Values begin at 0", fix="shift values", values=(-1024.0,))
    steps.run._mend(hint)
    steps.run.run()
    steps.calm()
    work = steps.review.work
    work.mask.paint((2, 80, 20), 1)
    work.settle()
    steps.calm()
    return work.labels.copy()


def restore(steps, until):
    until(lambda: steps.review.work.found is not None)
    steps.review.restore(steps.review.work)
    steps.calm()
    return steps.review.work


def test_everything_goes_on_without_a_new_run(left, steps_on, worker, picture, until):
    runs = len(worker.session.ran_with)
    worker.session.cards.append(card().model_copy(update={"name": "another", "classes": ("background", "a", "b")}))
    steps = steps_on(picture)
    steps.run.model_box.setCurrentIndex(steps.run.model_box.findData("another@1"))
    work, review = restore(steps, until), steps.review
    np.testing.assert_array_equal(work.mask.data, left)
    assert (review.model_key, work.model_key, work.classes) == ("quick@1", "quick@1", ("background", "cell"))
    assert list(work.mask.features["name"]) == ["background", "cell"]
    assert [place.name for place in steps.look.doubts.places] == ["cell"]
    assert review.layers.find(review.image, "uncertainty").data.shape == picture.shape
    assert steps.run.uncertainty.isChecked()
    assert steps.run.more.plane_box.currentData() == "coronal"
    assert steps.run.more.mirror.isChecked()
    assert worker.session.taken_up == [("quick@1", "coronal")]
    assert worker.session.fixes == (Hint("", fix="shift values", values=(-1024.0,)),), "the picture is seen as it was"

    until(lambda: steps.look.ready)
    steps.look.pick((2, 80, 20))
    until(lambda: steps.look.answered_query == (2, 80, 20))
    assert worker.session.questions[-1].source
    steps.learn.learn(1)
    steps.calm()
    (lesson,) = worker.session.learnt[-1]
    np.testing.assert_array_equal(lesson.labels, left)
    assert lesson.edited.any()
    until(lambda: "quick@3" in review.cards)
    steps.compare.compare("quick@3")
    steps.calm()
    assert steps.compare.found.old == "quick@1"
    np.testing.assert_array_equal(work.mask.data, left)
    assert len(worker.session.ran_with) == runs, "nothing was run again"


@pytest.mark.parametrize("what", ["gone", "changed"])
def test_a_model_that_is_not_what_it_was_is_told(left, steps_on, worker, picture, until, what):
    other = {"gone": {"name": "another"}, "changed": {"sha256": "ab" * 32}}[what]
    worker.session.cards = [card().model_copy(update=other)]
    steps = steps_on(picture)
    work = restore(steps, until)
    words = {"gone": MODEL_GONE, "changed": MODEL_CHANGED}[what].format(name="Quick cells")
    assert sum(words in said for said in steps.said) == 1
    np.testing.assert_array_equal(work.mask.data, left)
    assert work.classes == ("background", "cell")
    assert work.model_key == ""
    assert not steps.look.pick_button.isEnabled()
    assert steps.learn.learn_button.isEnabled()


@pytest.mark.parametrize(("then", "now"), [("quick@1", "quick@2"), ("quick@2", "quick@1")])
def test_another_version_stays_in_use(steps_on, worker, picture, until, then, now):
    """A later one, or an earlier one that somebody went back to."""
    worker.session.cards.append(card(2))
    steps = steps_on(picture)
    steps.run.model_box.setCurrentIndex(steps.run.model_box.findData(then))
    steps.run.run()
    steps.calm()
    steps.review.work.mask.paint((2, 80, 20), 1)
    steps.review.work.settle()
    steps.calm()
    steps = steps_on(picture)
    steps.run.model_box.setCurrentIndex(steps.run.model_box.findData(now))
    work = restore(steps, until)
    assert (steps.review.model_key, work.model_key) == (now, then)
    assert any(MODEL_OTHER_VERSION.format(old=then, new=now) in said for said in steps.said)


def test_the_next_picture_gets_the_model_of_the_users_choice(left, steps_on, worker, picture, until):
    worker.session.cards.append(card().model_copy(update={"name": "another"}))
    steps = steps_on(picture, picture[::-1].copy())
    steps.run.model_box.setCurrentIndex(steps.run.model_box.findData("another@1"))
    review = steps.review
    restore(steps, until)
    assert review.model_key == "quick@1"
    first, second = review.viewer.layers[0], review.viewer.layers["scan 1"]
    review.choose_image(second)
    assert review.model_key == "another@1"
    review.choose_image(first)
    assert review.model_key == "quick@1"
    steps.run.model_box.setCurrentIndex(steps.run.model_box.findData("another@1"))
    steps.run.run()
    steps.calm()
    review.choose_image(second)
    review.choose_image(first)
    assert review.model_key == "another@1", "the last run counts"


def test_a_mask_that_is_taken_back_after_a_change_keeps_its_model_for_the_next_time(left, steps_on, picture, until):
    steps = steps_on(picture)
    until(lambda: steps.review.work.found is not None)
    steps.review.work.mask.paint((0, 5, 5), 1)
    steps.review.work.settle()
    steps.calm()
    restore(steps, until)
    steps = steps_on(picture)
    assert restore(steps, until).model_key == "quick@1"
