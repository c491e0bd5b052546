"""What was asked about one picture and model is never shown as if it were of another."""

from __future__ import annotations

import threading

import numpy as np
import pytest

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
