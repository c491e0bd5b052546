"""Splits: by patient, balanced by group, the same every time, and kept in a file."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from napari_medt.core import BadTrainingData
from napari_medt.training.datasets import Case, DataSet, find_cases
from napari_medt.training.splits import apply_split, complete_split, hold_out, make_split, write_split


def data(*units, sides=()):
    """A data set of cases `(group, patient)`."""
    cases = [
        Case(f"c{i:03}", (Path(f"images/c{i:03}.png"),), Path(f"labels/c{i:03}.png"), group, patient, split)
        for i, ((group, patient), split) in enumerate(
            zip(units, [*sides, *[""] * (len(units) - len(sides))], strict=True)
        )
    ]
    return DataSet(Path(), "folders", tuple(cases))


TWO_GROUPS = [("bright", str(i)) for i in range(40)] + [("dark", f"d{i}") for i in range(10)]


def counts(found):
    return Counter((case.group, case.split) for case in found.cases)


def test_every_group_gives_its_share():
    found = counts(make_split(data(*TWO_GROUPS), 3, (0.7, 0.2, 0.1)))
    assert [found["bright", side] for side in ("train", "validation", "test")] == [28, 8, 4]
    assert [found["dark", side] for side in ("train", "validation", "test")] == [7, 2, 1]


def test_the_same_in_any_order_and_other_by_seed():
    whole = data(*TWO_GROUPS)
    sides = {case.name: case.split for case in make_split(whole, 3).cases}
    turned = make_split(replace(whole, cases=whole.cases[::-1]), 3)
    assert {case.name: case.split for case in turned.cases} == sides
    assert {case.name: case.split for case in make_split(whole, 4).cases} != sides


@settings(max_examples=60, deadline=None)
@example([("a", "p"), *[("a", "q")] * 6, ("a", "r")], 0)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("pqrstuvw")), min_size=4, max_size=40),
    st.integers(0, 99),
)
def test_no_patient_is_divided(units, seed):
    whole = data(*units)
    if len({case.unit for case in whole.cases}) < 3:
        return
    found = make_split(whole, seed, (0.6, 0.2, 0.2))
    sides = {}
    for case in found.cases:
        assert sides.setdefault(case.patient, case.split) == case.split
    assert set(sides.values()) == {"train", "validation", "test"}


def test_what_is_held_out_stays():
    found = make_split(data(*TWO_GROUPS, sides=["test", "validation"]), 1, (0.5, 0.5, 0.0))
    assert found.cases[0].split == "test"
    assert Counter(case.split for case in found.cases)["test"] == 1


def test_a_patient_of_the_test_side_goes_there_whole():
    found = make_split(data(("", "p"), ("", "p"), ("", "q"), ("", "r"), sides=["test"]), 1)
    assert [case.split for case in found.cases[:2]] == ["test", "test"]


def test_small_groups_share_between_them():
    found = make_split(data(*[(f"group {i}", str(i)) for i in range(10)]), 0)
    assert Counter(case.split for case in found.cases) == {"train": 8, "validation": 2}


@pytest.mark.parametrize("fractions", [(0.5, 0.2, 0.1), (0.0, 0.5, 0.5), (1.2, -0.2, 0.0)])
def test_shares_that_are_none(fractions):
    with pytest.raises(BadTrainingData, match="give three shares that sum to 1"):
        make_split(data(*TWO_GROUPS), 0, fractions)


def test_too_few_patients():
    with pytest.raises(BadTrainingData, match="of a single patient or field of view, too few for 2 parts"):
        make_split(data(("", "p"), ("", "p")))


def test_held_out_cases_that_the_data_name_stay_the_only_ones():
    named = ["test"] * 4 + [""] * 16
    found = complete_split(data(*[("", f"p{i}") for i in range(20)], sides=named), 0)
    assert [case.split == "test" for case in found.cases] == [side == "test" for side in named]
    assert Counter(case.split for case in found.cases) == {"test": 4, "train": 14, "validation": 2}
    assert complete_split(found, 1) is found


def test_to_a_file_and_back(tmp_path):
    whole = data(*TWO_GROUPS)
    found = make_split(whole, 3)
    path = write_split(found, tmp_path / "split.csv")
    assert apply_split(whole, path).cases == found.cases
    with path.open(newline="", encoding="utf-8") as file:
        rows = [(row["file"], row["split"]) for row in csv.DictReader(file)]
    assert rows == [(f"{c.name}.png", c.split) for c in found.cases]


def test_cases_that_are_not_in_the_file_are_left_out(tmp_path):
    path = tmp_path / "split.csv"
    path.write_text("file,split\nc000.png,train\nc001.png,validation\nzz.png,test\n")
    found = apply_split(data(*TWO_GROUPS), path)
    assert [(case.name, case.split) for case in found.cases] == [("c000", "train"), ("c001", "validation")]
    assert Counter(problem.kind for problem in found.problems) == {"row without files": 1, "no row": 48}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,kind\nc000.png,x\n", "it needs the columns file and split"),
        (
            "file,split\nc000.png,train\nc001.png,\n",
            "does not say on which side c001 is; write train, validation or test",
        ),
        ("file,field,split\nc000.png,7,train\nc001.png,7,test\n", "images of the patient 7 are in two splits"),
    ],
)
def test_files_that_are_no_split(tmp_path, text, said):
    path = tmp_path / "split.csv"
    path.write_text(text)
    with pytest.raises(BadTrainingData, match=said):
        apply_split(data(*TWO_GROUPS), path)


def test_real_nuclei(data_folder):
    whole = hold_out(find_cases(data_folder / "nuclei_dsb2018"))
    found = make_split(whole, 2018, (11 / 12, 1 / 12, 0.0))
    assert {case.name for case in found.on("test")} == {case.name for case in whole.on("test")}
    share = counts(found)
    for group in {case.group for case in whole.cases}:
        left = share[group, "train"] + share[group, "validation"]
        assert 1 <= share[group, "validation"] <= max(2, 0.12 * left)


def test_the_same_image_twice_stays_on_one_side():
    whole = data(*[("", "")] * 12)
    twins = {case.name: "one" if index in (0, 3, 7, 11) else case.name for index, case in enumerate(whole.cases)}
    for seed in range(20):
        found = complete_split(whole, seed, twins).cases
        assert len({case.split for case in found if twins[case.name] == "one"}) == 1
        assert {case.split for case in found} == {"train", "validation", "test"}


def test_patients_who_share_images_stay_together():
    whole = data(*[("", patient) for patient in "aabbccdefg"])
    twins = {"c001": "x", "c002": "x", "c003": "y", "c004": "y"}  # of a and b, of b and c
    for seed in range(20):
        found = {case.name: case for case in complete_split(whole, seed, twins).cases}
        assert len({found[f"c00{index}"].split for index in range(6)}) == 1
        assert found["c005"].patient == "a"
        assert found["c006"].patient == "d"
