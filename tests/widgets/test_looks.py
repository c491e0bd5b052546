# ruff: noqa: F811  (fixtures of another file)
"""Attention as the calculation process answers it, with small real networks, in the planes and on the grids of scans."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_medt.attention import AttentionExplorer
from napari_medt.attention.scene import Scene
from napari_medt.core import BadImage, Cancel, Cancelled, Geometry, Volume
from napari_medt.io import resample
from napari_medt.widgets import looks as looks_module
from napari_medt.widgets.answers import Question
from napari_medt.widgets.looks import EXPLORERS, Looks, Subject
from tests.attention.conftest import Probe, as_model, make_model  # noqa: F401

WATCH = {"progress": None, "cancel": None}


def scan_of(rng, shape=(5, 20, 24), spacing=(3.0, 0.8, 0.8)):
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = 10, -20, 30
    return Volume(rng.random((1, *shape), dtype=np.float32), Geometry(affine, "mm", "patient"))


def subject_of(volume, *, shown=None, plane=None, token="a"):
    return Subject(token, shown or volume, volume, "m", "cpu", plane)


@pytest.fixture
def flat_model(make_model):
    return make_model("u-transformer", (16, 16))


@pytest.fixture
def looks(flat_model):
    return Looks(lambda key, device: flat_model)


@pytest.mark.parametrize("plane", [None, "coronal"])
def test_of_a_scan_a_2d_model_is_asked_about_one_slice(looks, flat_model, rng, plane):
    volume = scan_of(rng, (4, 20, 18), (2.0, 1.0, 1.0))
    subject, at = subject_of(volume, plane=plane), (2, 7, 5)
    (found,) = looks.look(subject, Question("whole", "cross.1", at=at), **WATCH)
    whole = AttentionExplorer(flat_model, volume, plane=plane).overview("cross.1")
    axis = 0 if plane is None else 1
    place = whole.geometry.index(volume.geometry.position(at))
    assert sorted(found.data.shape)[0] == 1
    index = np.rint(found.geometry.index(volume.geometry.position(at)))
    assert np.abs(found.geometry.position(index) - volume.geometry.position(at))[axis] < 1e-6
    ours = found.data[tuple(np.clip(index, 0, np.array(found.data.shape) - 1).astype(int))]
    theirs = whole.data[tuple(np.clip(np.rint(place), 0, np.array(whole.data.shape) - 1).astype(int))]
    assert ours == pytest.approx(theirs, rel=1e-4)


def test_a_model_that_is_no_other_looks_nowhere_else(looks, rng):
    subject = subject_of(scan_of(rng))
    for question in (Question("point", "cross.1", at=(2, 9, 9)), Question("whole", "gate.1", at=(2, 0, 0))):
        (found,) = looks.look(subject, replace(question, against="m"), **WATCH)
        assert found.kind == "difference"
        assert np.abs(found.data).max() < 1e-6
        title = looks._load("m", "cpu").card.title
        asked = {"point": "at the same point", "whole": "over the whole picture"}[question.what]
        assert (
            found.caption
            == f"Two models {asked}: above 0 where {title} has more than {title}, below 0 where it has less."
        )


def test_a_piece_is_one_part_of_a_label(looks, flat_model, rng):
    volume = Volume(rng.random((1, 20, 24), dtype=np.float32), Geometry.from_spacing((1, 1)))
    labels = np.zeros((20, 24), bool)
    labels[2:6, 3:7] = labels[12:18, 10:20] = True
    crop = ((2, 3), labels[2:18, 3:20])
    subject = subject_of(volume)
    explorer = AttentionExplorer(flat_model, volume)
    (whole,) = looks.look(subject, Question("structure", "cross.1", inside=crop), **WATCH)
    np.testing.assert_allclose(whole.data, explorer.structure(labels, source="cross.1").data, rtol=1e-5)
    (piece,) = looks.look(subject, Question("piece", "cross.1", inside=crop, at=(14, 12)), **WATCH)
    labels[2:6] = False
    np.testing.assert_allclose(piece.data, explorer.structure(labels, source="cross.1").data, rtol=1e-5)


def test_what_is_right_and_wrong_is_asked_about_by_itself(looks, flat_model, rng):
    volume = Volume(rng.random((1, 20, 24), dtype=np.float32), Geometry.from_spacing((1, 1)))
    drawn, meant = np.zeros((2, 20, 24), bool)
    drawn[4:12, 5:15] = meant[6:14, 5:18] = True
    crop = ((4, 5), np.stack([drawn, meant])[:, 4:14, 5:18])
    explorer = AttentionExplorer(flat_model, volume)
    question = Question("right and wrong", "cross.1", inside=crop)
    more, right, wrong = looks.look(subject_of(volume), question, **WATCH)
    assert (more.kind, right.kind, wrong.kind) == ("difference", "right", "wrong")
    for found, mask in ((right, drawn & meant), (wrong, drawn != meant)):
        np.testing.assert_allclose(found.data, explorer.structure(mask, source="cross.1").data, rtol=1e-5)
    np.testing.assert_allclose(more.data, wrong.data - right.data, atol=1e-6)
    assert "drew wrongly" in more.caption
    gates = looks.look(subject_of(volume), replace(question, source="gate.1"), **WATCH)
    assert [found.kind for found in gates] == ["gate"], "it is the same whatever is asked about"
    at = explorer.overview("gate.1").data
    assert at.shape == drawn.shape
    means = f"{at[drawn & meant].mean():.2f} where the mask is right, {at[drawn != meant].mean():.2f} where it is wrong"
    assert means in gates[0].caption


def test_maps_of_a_scan_at_an_angle_lie_over_its_straight_copy(rng):
    """The gate of the planted network is the image itself, so its map must look like the copy; the bright place stays put."""
    turn = np.radians(20)
    affine = np.eye(4)
    affine[:3, :3] = np.diag([2.0, 1.0, 1.0]) @ np.eye(3)
    affine[1:3, 1:3] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    values = rng.random((6, 24, 24)).astype(np.float32) * 0.2
    values[2:4, 12:14, 16:18] = 1.0
    scan = Volume(values[None], Geometry(affine, "mm", "patient"))
    shape = (6, 32, 34)
    straight = Geometry.from_spacing((2, 1, 1), origin=(0, 0, -8), units="mm")
    copy = resample(scan, Geometry(straight.affine, "mm", "patient"), shape, nearest=True)
    model = as_model(Probe(), (6, 12, 12))
    subject = subject_of(scan, shown=copy)
    (gate,) = Looks(lambda key, device: model).look(subject, Question("whole", "gate", at=(0, 0, 0)), **WATCH)
    lie = gate.geometry.affine[:3, :3]
    assert np.allclose(lie, np.diag(np.diag(lie))), "along the axes of the copy"
    first = np.rint(copy.geometry.index(gate.geometry.position((0, 0, 0)))).astype(int)
    seen = copy.array[0][tuple(slice(f, f + n) for f, n in zip(first, gate.data.shape, strict=True))]
    inside = seen > 0
    assert inside.mean() > 0.5
    np.testing.assert_allclose(gate.data[inside], seen[inside], atol=1e-3)
    scans_own = AttentionExplorer(model, scan).overview("gate")
    np.testing.assert_array_equal(gate.extras["on_scan"].data, scans_own.data)
    assert gate.extras["on_scan"].geometry.close_to(scans_own.geometry, shape=scans_own.data.shape)
    bright = copy.geometry.index(scan.geometry.position((2.5, 12.5, 16.5)))
    at = tuple(int(i) for i in np.rint(bright + np.array((0, 2, -2))))
    (found, *_) = Looks(lambda key, device: model).look(subject, Question("point", "bright", at=at), **WATCH)
    assert found.query == at
    np.testing.assert_allclose(found.extras["targets"][0], bright, atol=0.5)
    low, high = found.extras["window"]
    assert (low < bright).all()
    assert (bright < high).all()
    ends = found.geometry.position(np.array([(-0.5,) * 3, np.array(found.data.shape) - 0.5]))
    np.testing.assert_allclose(copy.geometry.index(ends), [low, high], atol=1e-6, err_msg="not the frame of the map")


def turned_scan(rng):
    """A scan at an angle, and the copy turned straight, whose corners it does not reach."""
    scan = scan_of(rng, (6, 40, 40), (2.0, 1.0, 1.0))
    turn = np.radians(40)
    affine = scan.geometry.affine.copy()
    affine[1:3, 1:3] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    scan = replace(scan, geometry=Geometry(affine, "mm", "patient"))
    ends = scan.geometry.position(np.array(list(np.ndindex(2, 2, 2))) * (5, 39, 39))
    straight = np.diag([2.0, 1.0, 1.0, 1.0])
    straight[:3, 3] = ends.min(axis=0)
    shape = np.ceil((ends.max(axis=0) - ends.min(axis=0)) / (2, 1, 1)).astype(int) + 1
    return scan, resample(scan, Geometry(straight, "mm", "patient"), tuple(shape), nearest=True)


def test_a_point_in_a_corner_that_a_turned_scan_does_not_reach_says_so(looks, rng):
    scan, copy = turned_scan(rng)
    with pytest.raises(BadImage, match="The point lies in a corner that the scan does not reach"):
        looks.look(subject_of(scan, shown=copy), Question("point", "cross.1", at=(2, 0, 0)), **WATCH)


def test_corners_that_a_turned_scan_does_not_reach_are_left_out_when_it_is_prepared(looks, rng, monkeypatch):
    scan, copy = turned_scan(rng)
    monkeypatch.setattr(looks_module, "FEW_WINDOWS", 1)
    subject = subject_of(scan, shown=copy)
    looks.prepare(subject, (2, 0, 0), **WATCH)
    monkeypatch.setattr(Scene, "capture", lambda *_: pytest.fail("a window that was not prepared"))
    middle = tuple(n // 2 for n in copy.spatial_shape)
    looks.look(subject, Question("point", "cross.1", at=(2, *middle[1:])), **WATCH)


def test_the_maps_of_a_table_are_shown_without_another_pass(looks, rng, monkeypatch):
    subject, at = subject_of(scan_of(rng)), (1, 3, 3)
    lines = looks.compare_heads(subject, at, **WATCH)
    cross = [line for line in lines if line.source == "cross.1"]
    assert [line.head for line in cross] == [0, 1]
    assert all(0 <= line.entropy <= 1 and line.distance > 0 and line.unit == "mm" for line in cross)
    assert 0 < cross[0].agreement <= 1
    assert [line.agreement for line in lines if line.kind == "gate"] == [None] * sum(
        line.kind == "gate" for line in lines
    )
    assert cross[0].small.dtype == np.uint8
    assert max(cross[0].small.shape) <= looks_module.SMALL
    question = Question("whole", "cross.1", 1, at=at)
    (expected,) = Looks(looks._load).look(subject, question, **WATCH)
    monkeypatch.setattr(AttentionExplorer, "overview", lambda *_, **__: pytest.fail("passed again"))
    (found,) = looks.look(subject, question, **WATCH)
    np.testing.assert_allclose(found.data, expected.data, rtol=1e-5)


def test_what_is_kept_is_bounded_and_goes_with_its_image(looks, rng):
    volume = scan_of(rng)
    for z in range(EXPLORERS + 1):
        looks.look(subject_of(volume), Question("whole", "gate.1", at=(z, 0, 0)), **WATCH)
    assert len(looks._explorers) == EXPLORERS
    looks.look(subject_of(volume, token="b"), Question("point", "gate.1", at=(0, 0, 0)), **WATCH)
    looks.forget(but={"b"})
    assert {key[0] for key in looks._explorers} == {"b"}


def test_preparing_can_be_stopped(looks, rng):
    cancel = Cancel()
    cancel.set()
    with pytest.raises(Cancelled):
        looks.prepare(subject_of(scan_of(rng)), (1, 5, 5), progress=None, cancel=cancel)


def test_a_small_volume_is_prepared_as_a_whole(make_model, rng, monkeypatch):
    model = make_model("u-transformer", (16, 16, 16))
    looks, subject = Looks(lambda key, device: model), subject_of(scan_of(rng, (20, 24, 28), (1.0, 1.0, 1.0)))
    looks.prepare(subject, (10, 12, 14), **WATCH)
    monkeypatch.setattr(Scene, "capture", lambda *_: pytest.fail("a window that was not prepared"))
    for at in ((0, 0, 0), (19, 23, 27), (2, 20, 5)):
        looks.look(subject, Question("point", "cross.1", at=at), **WATCH)


@pytest.mark.parametrize("plane", [None, "sagittal"])
def test_a_check_sees_the_slice_that_the_model_saw(looks, rng, monkeypatch, plane):
    from napari_medt import attention

    volume, seen = scan_of(rng, (6, 20, 24), (2.0, 1.0, 1.0)), {}

    def check(model, image, found, *, structure, region, **options):
        seen.update(image=image, found=found, structure=structure, region=region)
        raise Cancelled

    monkeypatch.setattr(attention, "check_faithfulness", check)
    at, inside = (4, 8, 11), np.zeros((6, 20, 24), bool)
    inside[3:6, 5:12, 8:15] = True
    for question in (
        Question("point", "cross.1", at=at),
        Question("piece", "cross.1", at=at, inside=((0, 0, 0), inside)),
    ):
        with pytest.raises(Cancelled):
            looks.check(subject_of(volume, plane=plane), question, 1, **WATCH)
        assert seen["image"].geometry.ndim == 2
        expected = volume.array[0, 4] if plane is None else volume.array[0, :, :, 11]
        assert sorted(seen["image"].array.ravel()) == sorted(expected.ravel())
        if question.what == "point":
            assert seen["image"].array[0][seen["found"].query] == volume.array[(0, *at)]
            assert seen["region"] is None
    cut = inside[4] if plane is None else inside[:, :, 11]
    assert seen["region"].sum() == cut.sum()


def test_a_map_is_checked_for_real(rng):
    """The planted network draws what is bright, and its gate is the image: this map marks what the answer depends on."""
    pytest.importorskip("captum")
    values = rng.random((24, 24), dtype=np.float32) * 0.1
    values[8:12, 9:14] = 1.0
    model = as_model(Probe(), (16, 16))
    volume = Volume(values[None], Geometry.from_spacing((1, 1)))
    found = Looks(lambda key, device: model).check(
        subject_of(volume), Question("point", "gate", at=(9, 11), label=1), 1, **WATCH
    )
    assert found.structure == "object"
    assert -1 <= found.score <= 1
    assert found.chance[0] <= found.chance[1]
    assert found.sentence
