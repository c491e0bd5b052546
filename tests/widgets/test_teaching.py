"""What the calculation process learns and compares, here in this one, with a real small network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_medt.cases import CaseFolder, Journal
from napari_medt.core import BadTrainingData, Cancelled, Control, Geometry, Volume
from napari_medt.io import write
from napari_medt.widgets.lessons import Lesson, Who
from napari_medt.widgets.teaching import MENDED, SPOILT, TeachingSession, read_lesson


@pytest.fixture
def session(monkeypatch):
    monkeypatch.setattr("napari_medt.widgets.rehearsal.rehearsal_for", lambda card: [])
    return TeachingSession()


@pytest.fixture
def lessons(cells):
    """Three pictures with their masks, the first of them worked on."""
    made = []
    for number, picture in enumerate((cells[:48, :40], cells[40:, :40], cells[30:78, 70:110])):
        labels = (picture > 100).astype(np.uint8)
        who = Who(f"case {number}", f"patient {number}", current=number == 0)
        made.append(Lesson(who, Volume.from_array(picture), labels=labels, accepted=True))
    return made


def learn(session, lessons, model, **options):
    return session.learn(lessons, model, "cpu", minutes=0.005, **options)


def test_what_learning_takes_is_told_before_and_nothing_is_decided_by_asking(session, tiny_model, lessons):
    who = [lesson.who for lesson in lessons]
    ahead = session.learn_ahead(who, tiny_model, "cpu", learns="last layers")
    assert (ahead.cases, ahead.held_out, ahead.rehearsal) == (2, 1, 0)
    assert ahead.seconds_per_step > 0
    assert ahead.memory_mb > 0
    assert session.learn_ahead(who[:1], tiny_model, "cpu", learns="last layers").held_out == 0


def test_learning_and_comparing_never_mix_what_is_learnt_with_what_is_measured(session, tiny_model, lessons):
    events = []
    learnt = learn(session, lessons, tiny_model, emit=events.append)
    assert learnt.key == "a-tiny@2"
    assert "2 corrected images" in learnt.notes[0]
    assert any("validation" in event for event in events)
    assert set(events[-1]) & {"training", "validation"}

    compared = session.compare(lessons, tiny_model, learnt.key, "cpu")
    assert {change.cases for change in compared.held_out} == {1}
    assert {change.measure for change in compared.here} == {"dice", "hd95", "surface_dice", "volume_difference"}
    assert compared.verdict.why
    old, new = (session._model(key, "cpu") for key in (tiny_model, learnt.key))
    from napari_medt.engine.running import predict

    before, after = (predict(model, lessons[0].image).labels for model in (old, new))
    right, wrong = after == lessons[0].labels, before == lessons[0].labels
    np.testing.assert_array_equal(compared.drawn, (before, after))
    np.testing.assert_array_equal(compared.difference == MENDED, (before != after) & right)
    np.testing.assert_array_equal(compared.difference == SPOILT, (before != after) & wrong)

    sides = [session._sides([lesson.who], "a-tiny")[lesson.who.patient] for lesson in lessons]
    assert sides.count("held out") == 1, "kept, whoever is asked about next"


def test_only_measuring_cases_teach_nothing(session, tiny_model, lessons):
    kept = replace(lessons[0], who=replace(lessons[0].who, hold_out=True))
    with pytest.raises(BadTrainingData, match="kept for measuring"):
        learn(session, [kept], tiny_model)


def test_empty_masks_and_foreign_sizes_are_refused(session, tiny_model, lessons):
    empty = replace(lessons[0], labels=np.zeros((48, 40), np.uint8))
    with pytest.raises(BadTrainingData, match="empty"):
        learn(session, [empty], tiny_model)
    with pytest.raises(BadTrainingData, match="does not fit"):
        learn(session, [replace(lessons[0], labels=np.ones((3, 3), np.uint8))], tiny_model)


def test_cancelled_learning_stores_nothing(session, tiny_model, lessons):
    from napari_medt.zoo import versions

    control = Control()
    control.set()
    with pytest.raises(Cancelled):
        learn(session, lessons[:1], tiny_model, cancel=control)
    assert [card.version for card in versions("a-tiny")] == [1]


def test_of_a_draft_only_what_was_worked_on_and_lies_around_it_is_learnt(session, tiny_model, cells):
    scan = Volume.from_array(np.stack([cells] * 6), rgb=False)
    labels = np.stack([(cells > 100).astype(np.uint8)] * 6)
    edited = np.zeros(labels.shape, bool)
    edited[[1, 4], 5:9, 5:9] = True
    draft = Lesson(Who("scan", "p", current=True), scan, labels=labels, edited=edited)
    model = session._model(tiny_model, "cpu")
    found = list(session._corrections(read_lesson(draft), model, held_out=False, group="new"))
    assert len(found) == 2
    assert all(case.edited.any() and case.reviewed[:41, :41].all() for case in found)
    assert {int(case.reviewed.sum()) for case in found} == {41 * 41}
    np.testing.assert_array_equal(found[1].labels, labels[4])
    whole = list(session._corrections(read_lesson(replace(draft, accepted=True)), model, held_out=False, group="new"))
    assert len(whole) == 6
    assert {case.patient for case in whole} == {"p"}
    assert {case.reviewed for case in whole} == {None}


def test_one_stroke_does_not_vouch_for_a_whole_picture(session, tiny_model, cells):
    labels, edited = (cells > 100).astype(np.uint8), np.zeros(cells.shape, bool)
    edited[60:64, 60:64] = True
    draft = Lesson(Who("picture", "p", current=True), Volume.from_array(cells), labels=labels, edited=edited)
    taught = read_lesson(draft)
    assert taught.reviewed[28:96, 28:96].all()
    assert int(taught.reviewed.sum()) == 68 * 68
    model = session._model(tiny_model, "cpu")
    (found,) = session._corrections(taught, model, held_out=False, group="new")
    np.testing.assert_array_equal(found.reviewed, taught.reviewed)
    assert read_lesson(replace(draft, accepted=True)).reviewed is None
    undone = read_lesson(replace(draft, edited=np.zeros_like(edited)))
    assert not list(session._corrections(undone, model, held_out=False, group="new")), "nobody looked at anything"


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_scan_teaches_a_2d_model_the_slices_that_it_runs_on(session, tiny_model, rng, axis):
    """Whichever axis of the file counts the slices: the model is taught what it is given in a run."""
    from napari_medt.engine import prepare

    spacing, shape = np.full(3, 0.8), np.full(3, 20)
    spacing[axis], shape[axis] = 4.0, 5
    affine = np.diag([-spacing[0], -spacing[1], -spacing[2], 1.0])  # each axis is turned round for the model
    image = Volume(rng.random((1, *shape), dtype=np.float32), Geometry(affine, "mm", "patient"))
    labels = (image.array[0] > 0.5).astype(np.uint8)
    edited = labels.astype(bool) & (image.array[0] > 0.9)
    model = session._model(tiny_model, "cpu")
    lesson = Lesson(Who("scan", "p", current=True), image, labels=labels, edited=edited, accepted=True)
    found = list(session._corrections(read_lesson(lesson), model, held_out=False, group="new"))
    seen = prepare.fit(image, model.card)
    assert len(found) == 5
    for number, case in enumerate(found):
        np.testing.assert_array_equal(case.image.array, seen.array[:, number])
        assert case.image.geometry.spacing == pytest.approx((0.8, 0.8))
        np.testing.assert_array_equal(case.labels, case.image.array[0] > 0.5)
        np.testing.assert_array_equal(case.edited, case.image.array[0] > 0.9)


def test_an_accepted_case_is_read_from_its_folder(tmp_path, cells):
    path = write(Volume.from_array(cells), tmp_path / "picture.tif")
    mask, journal = np.zeros(cells.shape, np.uint8), Journal()
    with CaseFolder.open(Volume.from_array(cells), root=tmp_path / "cases") as case:
        before = mask[2:9, 3:8].copy()
        case.record(journal.record_box("brush", (slice(2, 9), slice(3, 8)), before, before + 1, by="hand"))
        case.accept("somebody")
    found = read_lesson(Lesson(Who("picture", "p"), path=path, root=tmp_path / "cases"))
    assert found.reviewed is None
    mask[2:9, 3:8] = 1
    np.testing.assert_array_equal(found.labels, mask)
    np.testing.assert_array_equal(found.edited, mask > 0)
    np.testing.assert_array_equal(found.image.array[0], cells)


def test_bundled_pictures_are_rehearsed_by_models_of_their_kind(session, tiny_model):
    from napari_medt.widgets.rehearsal import _pictures

    card = session._model(tiny_model, "cpu").card
    pictures = list(_pictures(card))
    assert [picture.spatial_shape for picture in pictures] == [(256, 256)] * 2
    assert not list(_pictures(card.model_copy(update={"modality": "MR"})))
