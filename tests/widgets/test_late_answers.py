"""What was asked about one picture and model is never shown as if it were of another."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from napari_medt.core import Cancel, silent
from napari_medt.widgets import layers
from tests.widgets.conftest import card


@pytest.fixture
def two(steps_on, worker, cells, until):
    """The steps on two pictures, the first of which was run on; another model is there, too."""
    worker.session.cards.append(card().model_copy(update={"name": "another"}))
    steps = steps_on(cells, cells[::-1].copy())
    steps.run.uncertainty.setChecked(True)
    steps.run.run()
    steps.calm()
    until(lambda: steps.look.ready)
    return steps


def shown(steps):
    found = [layer for layer in steps.review.viewer.layers if layers.is_ours(layer)]
    return sorted(layer.metadata[layers.KEY]["role"] for layer in found)


def other_model(steps):
    steps.run.model_box.setCurrentIndex(steps.run.model_box.findData("another@1"))


def test_maps_of_the_former_model_go_and_what_its_run_found_stays(two, until):
    two.look.pick((20, 30))
    until(lambda: two.look.answered_query == (20, 30))
    assert "attention" in shown(two)
    two.look.more.keep()
    other_model(two)
    assert shown(two) == ["kept", "mask", "uncertainty"]
    assert two.look.map_shown is None


@pytest.fixture(params=["picture", "model"])
def leave(request, two):
    """Chooses another picture or model."""

    def go():
        if request.param == "picture":
            two.review.choose_image(two.review.viewer.layers["scan 1"])
        else:
            other_model(two)

    return go


@pytest.fixture
def late(worker, monkeypatch):
    """Lets a question be answered only when told, and never be cancelled."""
    gate, entered = threading.Event(), threading.Event()

    def hold(method):
        real = getattr(worker.session, method)

        def answer(*args, **options):
            entered.set()
            assert gate.wait(60)
            return real(*args, **options, progress=silent, cancel=Cancel())

        monkeypatch.setattr(worker.session, method, answer)
        return gate, entered

    yield hold
    gate.set()


def test_a_table_of_heads_for_another_picture_or_model_is_dropped(two, late, leave, until):
    gate, entered = late("compare_heads")
    two.look.more.heads_button.setEnabled(True)
    told = []
    two.look.looking.compared.connect(told.append)
    two.look.looking.compare_heads()
    until(entered.is_set)
    leave()
    gate.set()
    until(lambda: two.look.looking._pending is None)
    assert told == []
    assert two.look.more.table is None


def test_a_check_for_another_picture_or_model_is_dropped(two, worker, leave, until, monkeypatch):
    two.look.pick((20, 30))
    until(lambda: two.look.answered_query == (20, 30))
    gate, entered = threading.Event(), threading.Event()

    def check_map(*args, **options):
        entered.set()
        assert gate.wait(60)

    monkeypatch.setattr(worker.session, "check_map", check_map)
    told = []
    two.look.looking.checked.connect(told.append)
    two.look.check()
    until(entered.is_set)
    leave()
    gate.set()
    until(lambda: two.look.looking._pending is None)
    assert told == []


def test_a_structure_cut_out_of_another_mask_is_not_asked_about(two, leave, until):
    gate, told = threading.Event(), []
    two.look.more.asked.connect(lambda *asked: told.append(asked))
    two.review.bridge.aside(lambda: gate.wait(60))
    two.look.more.ask_structure()
    leave()
    gate.set()
    until(lambda: two.review.bridge.idle)
    two.calm()
    assert told == []
    two.review.choose_image(two.review.viewer.layers["scan 0"])
    two.look.more.ask_structure()
    until(lambda: len(told) == 1)


def test_a_comparison_of_another_picture_is_put_aside(two, late, until):
    review = two.review
    review.work.mask.paint((5, 5), 1)
    review.work.settle()
    two.learn.learn(1)
    two.calm()
    until(lambda: "quick@3" in review.cards)
    gate, entered = late("compare")
    two.compare.compare("quick@3")
    until(entered.is_set)
    review.choose_image(review.viewer.layers["scan 1"])
    gate.set()
    until(lambda: not review.busy)
    two.calm()
    assert two.compare.found is None
    assert "put aside" in two.compare.message.text
    assert "difference" not in shown(two)


def test_a_signature_that_arrives_late_is_kept_and_moves_nothing_on(two, until):
    gate, decided = threading.Event(), []
    two.cases.decided.connect(decided.append)
    first = two.review.work
    two.review.changes.aside(lambda: gate.wait(60))
    two.cases.accept()
    two.review.choose_image(two.review.viewer.layers["scan 1"])
    stage = two.review.stage
    gate.set()
    two.calm()
    until(lambda: first.status == "accepted")
    assert (decided, two.review.stage) == ([], stage)
    assert not np.asarray(two.review.work.mask.data).any()
