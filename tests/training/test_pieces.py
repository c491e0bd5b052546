"""Which structures come in one piece is found on the validation images."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from napari_medt.training import pieces
from napari_medt.training.corrections import Correction
from napari_medt.training.fine_tuning import _whole


@pytest.fixture
def found(monkeypatch):
    """What is found for a reference and a mask of two structures."""

    def found(reference, mask, *, cases=2):
        monkeypatch.setattr(pieces, "load", lambda case, recipe, rule: (None, reference))
        monkeypatch.setattr(pieces, "predict", lambda model, image, cancel: SimpleNamespace(labels=mask))
        recipe = SimpleNamespace(overlapping=False, classes=("background", "cord", "islands"))
        images = SimpleNamespace(on=lambda side: ["case"] * cases, rule="classes")
        return pieces.in_one_piece(None, recipe, images)

    return found


@pytest.fixture
def reference():
    labels = np.zeros((20, 20), np.uint8)
    labels[:5, :5], labels[10:13, :3], labels[10:13, 10:13] = 1, 2, 2
    return labels


def test_where_strays_are_wrong_the_largest_part_is_kept(found, reference):
    mask = reference.copy()
    mask[18:, 18:] = 1
    assert found(reference, mask) == ("cord",)


def test_where_the_smaller_part_is_right_it_stays(found, reference):
    mask = reference.copy()
    mask[2] = 0  # cuts it in two
    assert found(reference, mask) == ()


def test_without_strays_nothing_is_claimed(found, reference):
    assert found(reference, reference.copy()) == ()
    assert found(reference, reference.copy(), cases=0) == ()


def test_a_structure_that_a_person_draws_in_two_pieces_is_not_cut_any_more(reference):
    card = SimpleNamespace(classes=("background", "cord", "islands"), one_piece=("cord", "islands"))
    image = np.zeros(reference.shape)
    assert _whole(card, [Correction(image, reference)]) == ("cord",)
    assert _whole(card, [Correction(image, None, group="rehearsal")]) == ("cord", "islands")
