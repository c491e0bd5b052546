"""What runs in the calculation process, here in this one, with a real small network."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medt.core import Volume
from napari_medt.widgets.answers import Question
from napari_medt.widgets.session import MISSING, Session


@pytest.fixture
def session():
    return Session()


@pytest.fixture
def picture(cells):
    return Volume.from_array(cells[:48, :40], source="cells")


def test_a_picture_is_asked_for_once(session, tiny_model, picture):
    assert session.predict("a", tiny_model) == MISSING
    assert session.look("a", tiny_model, "cpu", Question("point", "layer1.0", at=(1, 1))) == MISSING
    session.put_image("a", picture)
    answer = session.predict("a", tiny_model, "cpu", uncertainty=True)
    found, shares = answer.prediction, answer.shares
    assert found.labels.shape == (48, 40)
    assert found.uncertainty.dtype == np.float32
    assert sum(shares) == pytest.approx(1)
    assert shares[1] == pytest.approx((found.labels == 1).mean())


def test_two_pictures_are_kept(session, picture):
    for token in "abc":
        session.put_image(token, picture)
    assert list(session._images) == ["b", "c"]


def test_learning_sees_a_slice_as_a_run_on_its_scan_does(session, tiny_model, rng):
    from napari_medt.engine.prepare import fit

    scan = Volume.from_array(np.stack([rng.random((48, 40)) * 0.2, rng.random((48, 40))]), rgb=False)
    session.put_image("scan", scan)
    model = session._model(tiny_model, "cpu")
    assert session._looks._scale(session._subject("scan", tiny_model, "cpu")) == fit(scan, model.card).scale


def test_forgetting(session, tiny_model, picture):
    session.put_image("a", picture)
    session.predict("a", tiny_model, "cpu")
    session.forget()
    assert session.predict("a", tiny_model, "cpu") == MISSING


def test_what_a_run_will_take_is_told_before_and_its_time_after_the_first(session, tiny_model, picture):
    assert session.look_ahead("scan", tiny_model) == MISSING
    session.put_image("scan", Volume.from_array(np.stack([picture.array[0]] * 3), rgb=False))
    before = session.look_ahead("scan", tiny_model, "cpu", roi=(slice(1, 2), slice(0, 48), slice(0, 40)))
    assert before.seconds is None
    assert before.memory_mb > 0
    whole = session.look_ahead("scan", tiny_model, "cpu")
    assert whole.windows == 3 * before.windows
    session.predict("scan", tiny_model, "cpu")
    assert session.look_ahead("scan", tiny_model, "cpu").seconds > 0
    assert session.look_ahead("scan", tiny_model, "cpu", flips=True).seconds is None


def test_wishes_reach_the_engine(session, tiny_model, picture):
    session.put_image("scan", Volume.from_array(np.stack([picture.array[0]] * 3), rgb=False))
    roi = (slice(1, 2), slice(0, 48), slice(0, 40))
    part = session.predict("scan", tiny_model, "cpu", roi=roi, uncertainty="margin").prediction
    assert not any("elsewhere" in note for note in part.notes), "in the dock the mask stays as it was elsewhere"
    whole = session.predict("scan", tiny_model, "cpu").prediction
    np.testing.assert_array_equal(part.labels[1], whole.labels[1])
    assert not part.labels[[0, 2]].any()
    assert part.uncertainty[1].any()
