"""Who is learnt from and who is measured on, and what keeps a worse version out."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_medt.training.gate import changes, judge
from napari_medt.training.sides import draw_sides, keep_sides, load_sides, stand_in, with_former

names = st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=12, unique=True)


@given(st.lists(names, min_size=1, max_size=5), st.data())
def test_a_patient_never_changes_sides(rounds, data):
    known = {}
    for patients in rounds:
        wanted = data.draw(st.lists(st.sampled_from(patients), unique=True))
        sides = draw_sides(known, patients, wanted=wanted, last=patients[0])
        for patient in patients:
            assert known.get(stand_in(patient), sides[patient]) == sides[patient]
        if patients[0] not in wanted and stand_in(patients[0]) not in known:
            assert sides[patients[0]] == "learnt", "who is being worked on is learnt from"
        known |= {stand_in(patient): side for patient, side in sides.items()}


@pytest.mark.parametrize(("count", "held_out"), [(1, 0), (2, 0), (3, 1), (5, 1), (10, 2)])
def test_how_many_are_held_out(count, held_out):
    sides = draw_sides({}, [str(n) for n in range(count)])
    assert list(sides.values()).count("held out") == held_out


def test_a_patient_keeps_the_side_of_a_former_name():
    known = {stand_in("scan.nii.gz"): "held out", stand_in("one"): "learnt", stand_in("two"): "held out"}
    names = [("scan", ("scan.nii.gz", "scan")), ("anna", ("two", "two.tif")), ("anna", ("one",)), ("new", ("new.tif",))]
    for order in (names, names[::-1]):
        sides = draw_sides(with_former(known, order), ["scan", "anna"])
        assert sides == {"scan": "held out", "anna": "learnt"}, "who was learnt from under any name is never held out"
        assert stand_in("new") not in with_former(known, order)
    decided = known | {stand_in("scan"): "learnt"}
    assert with_former(decided, names)[stand_in("scan")] == "learnt"


def test_sides_are_kept_without_names(tmp_path):
    path = tmp_path / "learning" / "sides.json"
    assert load_sides(path) == {}
    keep_sides(path, {}, {"Jane Roe": "held out"})
    keep_sides(path, load_sides(path), {"Richard Roe": "learnt"})
    assert sorted(load_sides(path).values()) == ["held out", "learnt"]
    assert "Roe" not in path.read_text()
    path.write_text("{")
    assert load_sides(path) == {}


def scored(*values, structure="cell", measure="dice"):
    return [{(structure, measure): value} for value in values]


def test_a_version_that_is_worse_on_every_case_is_kept_out():
    found = changes(scored(0.9, 0.8, 0.85), scored(0.7, 0.65, 0.6))
    verdict = judge(found)
    assert verdict.worse
    assert "Dice of cell falls from 0.85 to 0.65" in verdict.why
    assert found[0].low <= found[0].after - found[0].before <= found[0].high


def test_what_its_interval_explains_does_not_keep_a_version_out():
    assert not judge(changes(scored(0.9, 0.8, 0.85), scored(0.95, 0.7, 0.86))).worse
    assert not judge(changes(scored(0.8), scored(0.79))).worse
    assert judge(changes(scored(0.8), scored(0.7))).worse


def test_a_fall_that_may_be_chance_is_not_said_to_be_none():
    verdict = judge(changes(scored(0.9, 0.8), scored(0.6, 0.8)))
    assert (verdict.worse, verdict.unsure) == (False, True)
    assert verdict.why.startswith("On 2 held-out cases Dice of cell falls from 0.85 to 0.70")
    assert (
        judge(changes(scored(0.9, 0.8), scored(0.89, 0.81))).why == "The new version is not worse on 2 held-out cases."
    )


def test_one_structure_may_not_pay_for_another():
    before = [{("cord", "dice"): 0.8, ("stem", "dice"): 0.5}] * 4
    after = [{("cord", "dice"): 0.6, ("stem", "dice"): 0.9}] * 4
    verdict = judge(changes(before, after))
    assert verdict.worse
    assert "cord" in verdict.why
    assert "stem" not in verdict.why


def test_without_held_out_cases_it_says_so():
    verdict = judge(changes([], []))
    assert not verdict.worse
    assert "No case was held out" in verdict.why


def test_distances_to_nothing_and_the_size_of_volume_errors():
    (hd,) = changes(scored(math.inf, 2.0, measure="hd95"), scored(1.0, 1.0, measure="hd95"))
    assert hd.before == math.inf
    assert hd.after == 1
    (volume,) = changes(scored(-4.0, measure="volume_difference"), scored(3.0, measure="volume_difference"))
    assert (volume.before, volume.after) == (4, 3)
