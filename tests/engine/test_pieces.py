"""Structures that come in one piece: only the largest part stays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_medt.engine import predict
from napari_medt.engine.pieces import is_one_piece, largest_part, leave_out_strays
from napari_medt.zoo import ModelCard


def test_all_but_the_largest_part_of_a_structure_is_left_out():
    labels = np.zeros((4, 6, 6), np.uint8)
    labels[0, :2, :2], labels[3, 5, 5], labels[1, 4, 4] = 1, 1, 2
    assert leave_out_strays(labels, [1, 2, 3]) == (1,)
    assert (labels == 1).sum() == 4
    assert labels[3, 5, 5] == 0
    assert labels[1, 4, 4] == 2


def test_neighbours_by_a_corner_are_one_part():
    for ndim in (2, 3):
        mask = np.zeros((3,) * ndim, bool)
        mask[(0,) * ndim] = mask[(1,) * ndim] = True
        assert largest_part(mask).sum() == 2


def test_nothing_is_in_one_piece_and_nothing_is_left_out_of_it():
    empty = np.zeros((3, 3), bool)
    assert is_one_piece(empty)
    assert leave_out_strays(empty.astype(np.uint8), [1]) == ()


def test_a_stray_voxel_does_not_make_two_pieces():
    mask = np.zeros((10, 10), bool)
    mask[:5, :5] = mask[9, 9] = True
    assert is_one_piece(mask)
    mask[7:, 7:] = True
    assert not is_one_piece(mask)


@pytest.fixture
def whole(threshold):
    return replace(threshold, card=threshold.card.model_copy(update={"one_piece": ("thing",)}))


@pytest.fixture
def two_things():
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[5:25, 5:25] = picture[50:54, 50:54] = 255
    return picture


def test_a_prediction_shows_the_largest_part_and_says_so(whole, threshold, two_things):
    assert predict(threshold, two_things).labels[51, 51] == 1
    found = predict(whole, two_things)
    assert found.labels.sum() == 400
    assert "Only the largest part is shown of: thing." in found.notes
    assert predict(whole, two_things[:40, :40]).notes == predict(threshold, two_things[:40, :40]).notes


def test_a_region_is_segmented_as_it_is(whole, two_things):
    """Whether its largest part is that of the whole image, nobody knows."""
    found = predict(whole, two_things, roi=(slice(20, 64), slice(20, 64)))
    assert found.labels[51, 51] == found.labels[22, 22] == 1
    assert "Parts that lie apart were not left out of: thing." in found.notes


def test_a_card_names_structures_it_has(make_card):
    with pytest.raises(ValueError, match="one_piece names 'liver'"):
        make_card(one_piece=("liver",))
    assert ModelCard.model_validate(make_card(one_piece=("thing",)).model_dump()).one_piece == ("thing",)
