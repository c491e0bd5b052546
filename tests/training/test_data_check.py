"""What is wrong with a data set is said in one sentence a problem."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from imageio.v3 import imwrite

from napari_medt.core import Cancel, Cancelled, Geometry, LabelMap, Volume
from napari_medt.io import write
from napari_medt.training import survey
from napari_medt.training.data_check import Problem, check_data, describe
from napari_medt.training.datasets import find_cases
from napari_medt.training.splits import make_split
from napari_medt.training.survey import look_at_all

CLASSES = ("background", "disc")
SIZE = (20, 24)


def place(shift=0.0, spacing=(3.0, 1.0, 1.0), frame="patient"):
    return Geometry.from_spacing(
        spacing, origin=(0.0, shift, 0.0), units="mm" if frame == "patient" else "px", frame=frame
    )


class Folder:
    """A data set in the making."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for part in ("images", "labels"):
            (path / part).mkdir()

    def picture(self, name, image=None, mask=None):
        seed = sum(map(ord, name))
        if image is None:
            image = np.random.default_rng(seed).integers(0, 255, SIZE, dtype=np.uint8)
        if mask is None:
            mask = np.zeros(image.shape[:2], np.uint8)
            mask[4:9, 4:9] = 1
        imwrite(self.path / "images" / f"{name}.png", image)
        imwrite(self.path / "labels" / f"{name}.png", mask)

    def scan(self, name, *, shape=(6, 10, 8), image=None, mask_shape=None, geometry=None, mask_geometry=None):
        if image is None:
            image = np.random.default_rng(sum(map(ord, name))).integers(0, 900, shape).astype(np.int16)
        mask = np.zeros(mask_shape or shape, np.uint8)
        mask[1:3, 2:5, 2:5] = 1
        geometry = geometry or place()
        write(Volume(image[None], geometry), self.path / "images" / f"{name}.nii.gz")
        write(LabelMap(mask, mask_geometry or geometry), self.path / "labels" / f"{name}.nii.gz")

    def problems(self, classes=CLASSES, **options):
        return [str(p) for p in check_data(self.data, classes, **options) if p.kind != "no validation part"]

    @property
    def data(self):
        return find_cases(self.path)


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


@pytest.fixture
def good(folder):
    for name in ("a", "b", "c"):
        folder.picture(name)
    return folder


def test_nothing_wrong(good):
    (good.path / "index.csv").write_text("file,split\na.png,train\nb.png,train\nc.png,val\n")
    (good.path / "images" / "Thumbs.db").write_bytes(b"x")
    assert check_data(good.data, CLASSES) == []
    assert describe([]) == "No problem was found."


def test_missing_pair(good):
    (good.path / "labels" / "c.png").unlink()
    assert good.problems() == ["c: c.png has no mask of the same name in labels; add the mask, or take the image out."]


def test_unreadable_files(good):
    (good.path / "images" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    (good.path / "labels" / "b.png").write_bytes(b"")
    first, second = good.problems()
    assert first.startswith("a: a.png is a damaged or incomplete PNG")
    assert second == "b: b.png is empty (0 bytes); copy or export it again."


def test_unequal_sizes(good):
    good.picture("c", mask=np.ones((20, 23), np.uint8))
    (told,) = good.problems()
    assert (
        told == "c: The image has 20 x 24 voxels, but its mask has 20 x 23; give the mask that was drawn on this image."
    )


def test_a_mask_on_another_grid_is_only_mentioned(folder):
    for name in "abc":
        folder.scan(name)
    fine = place(spacing=(3.0, 0.5, 0.5))
    folder.scan("b", mask_shape=(6, 19, 15), mask_geometry=fine)
    (problem,) = [p for p in check_data(folder.data, CLASSES) if p.kind == "shape"]
    assert (problem.severity, problem.case) == ("warning", "b")


def test_a_mask_elsewhere(folder):
    for name in "ab":
        folder.scan(name)
    folder.scan("c", mask_geometry=place(shift=0.05))
    assert folder.problems() == []
    folder.scan("c", mask_geometry=place(shift=2.0))
    (told,) = folder.problems()
    assert told.startswith("c: The mask lies up to 2 mm beside its image; copy the image's header")
    assert folder.problems(tolerance_mm=2.5) == []


def test_labels_without_a_class(good):
    good.picture("c", mask=np.resize(np.array([0, 1, 3], np.uint8), SIZE))
    assert good.problems() == [
        "c: The mask holds the label 3, of which there is no class; correct the mask, or name the class."
    ]
    assert good.problems({0: "background", 1: "disc", 3: "ring"}) == []
    assert good.problems(None) == [
        "c: No other mask holds the label 3, each of which is taken for a class; correct the mask if that is a slip."
    ]


def test_black_and_white_masks(folder):
    for name in "ab":
        folder.picture(name, mask=np.resize(np.array([0, 255], np.uint8), SIZE))
    for classes in (CLASSES, None):
        assert (
            "black and white, 0 and 255, instead of numbering classes from 0; give --masks objects"
            in (folder.problems(classes)[0])
        )
    as_objects = replace(folder.data, rule="objects")
    assert [p.kind for p in check_data(as_objects)] == ["no validation part"]


def test_masks_that_number_objects(folder):
    folder.picture("a", mask=np.arange(480, dtype=np.uint16).reshape(SIZE))
    folder.picture("b", mask=np.resize(np.array([0, 1, 2], np.uint8), SIZE))
    told = folder.problems()
    assert all("give --masks objects if it numbers single objects" in sentence for sentence in told[:2])


def test_numbered_objects_are_not_taken_for_classes_in_silence(folder):
    for name, count in (("a", 2), ("b", 5), ("c", 8)):
        folder.picture(name, mask=np.resize(np.arange(count + 1, dtype=np.uint8), SIZE))
    (told,) = folder.problems(None)
    assert told == (
        "Masks hold labels from 1 to 2 up to 1 to 8, each of which is taken for a class; "
        "give --masks objects if they number single objects, else name the classes."
    )
    assert [p.kind for p in check_data(replace(folder.data, rule="objects"))] == ["no validation part"]


def test_a_class_that_is_never_there(good):
    assert "The class ring (label 2) is not in any mask; add cases that show it" in good.problems((*CLASSES, "ring"))[0]


def test_a_class_that_is_only_held_out(good):
    good.picture("c", mask=np.resize(np.array([0, 1, 2], np.uint8), SIZE))
    (good.path / "index.csv").write_text("file,split\na.png,train\nb.png,val\nc.png,test\n")
    told = good.problems((*CLASSES, "ring"))
    assert told[0].startswith("The class ring (label 2) is not in a mask that is learnt from")


def test_swapped_folders(good):
    (good.path / "images").rename(good.path / "x")
    (good.path / "labels").rename(good.path / "images")
    (good.path / "x").rename(good.path / "labels")
    kinds = [problem for problem in check_data(good.data, CLASSES) if problem.kind == "swapped"]
    assert [problem.case for problem in kinds] == ["a", "b", "c"]
    assert "Image and mask seem to be swapped" in kinds[0].what


def test_an_image_given_as_its_own_mask(good):
    image = (good.path / "images" / "a.png").read_bytes()
    (good.path / "labels" / "a.png").write_bytes(image)
    assert "a: Image and mask are the same; give the mask of this image." in map(str, good.problems())


def test_masks_without_background(folder):
    for name in "ab":
        folder.picture(name, mask=np.ones((20, 24), np.uint8))
    assert folder.problems()[0].startswith("No mask leaves any background; ")


def test_swapped_colour_images(folder):
    colours = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    folder.picture("a", image=np.resize(np.array([0, 1], np.uint8), SIZE), mask=colours)
    assert "swapped" in [problem.kind for problem in check_data(folder.data, CLASSES)]


def test_empty_masks(good):
    good.picture("c", mask=np.zeros(SIZE, np.uint8))
    assert good.problems() == ["c: The mask is empty; check that there is nothing of it in the image."]
    for name in "ab":
        good.picture(name, mask=np.zeros(SIZE, np.uint8))
    assert good.problems()[0] == "All masks are empty; draw masks first."


def test_constant_and_nan_images(folder):
    for name in "ab":
        folder.scan(name)
    folder.scan("c", image=np.full((6, 10, 8), 7, np.int16))
    holes = np.random.default_rng(1).normal(100, 30, (6, 10, 8)).astype(np.float32)
    holes[0] = np.nan
    folder.scan("d", image=holes)
    folder.scan("e", image=np.full((6, 10, 8), np.nan, np.float32))
    told = "\n".join(folder.problems())
    assert "c: All voxels of the image have the value 7; take it out." in told
    assert "d: 16.7 % of the image's values are not numbers (NaN or infinity)" in told
    assert "e: The image holds no number, only NaN or infinity; check how the image was made." in told


def test_channels_and_axes_that_differ(good):
    good.picture("c", image=np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8))
    assert good.problems() == [
        "2 images are grey and 1 have three channels; know that grey images are learnt as colour ones."
    ]
    good.scan("d")
    assert "d: The image has 3 axes, but most have 2; train on 2D images and on scans apart." in good.problems()


def test_spacing_that_stands_out(folder):
    for name in "abcd":
        folder.scan(name)
    folder.scan("e", geometry=place(spacing=(9.0, 1.0, 1.0)))
    (told,) = folder.problems()
    assert (
        told
        == "e: Its samples are 9 x 1 x 1 mm apart, but usually 3 x 1 x 1 mm; check that it belongs to this data set."
    )


def test_the_same_image_twice(good):
    same = np.random.default_rng(5).integers(0, 255, SIZE, dtype=np.uint8)
    for name in "ab":
        good.picture(name, image=same)
    assert good.problems() == ["b: It is the same image as a; take one of them out."]
    (good.path / "index.csv").write_text("file,split\na.png,train\nb.png,test\nc.png,val\n")
    assert good.problems() == [
        "b: It is the same image as a, but the one is in test and the other in train; take one of them out."
    ]


def test_a_patient_on_two_sides(good):
    (good.path / "index.csv").write_text("file,split,patient\na.png,train,7\nb.png,val,7\nc.png,val,8\n")
    assert good.problems() == [
        "Images of the patient or field of view 7 are in train and validation; make the split anew, by patient."
    ]


def test_single_case_and_no_validation(folder):
    folder.picture("a")
    assert folder.problems() == [
        "There is a single case, so nothing tells how well the model does on others; add cases if you can."
    ]
    folder.picture("b")
    assert [problem.kind for problem in check_data(folder.data, CLASSES)] == ["no validation part"]


def test_errors_come_first_and_long_lists_are_cut():
    problems = [Problem("warning", "empty", "The mask is empty", "look", f"w{i}") for i in range(9)]
    lines = describe([*problems, Problem("error", "shape", "It is small", case="e")]).splitlines()
    assert lines[0] == "Error    e: It is small."
    assert lines[4] == "         and 6 more of this kind: w3, w4, w5, w6, w7 ..."
    assert lines[-1] == "1 error, 9 warnings."


def test_what_was_found_is_kept(good, tmp_path, monkeypatch):
    cache = tmp_path / "facts.json"
    first = look_at_all(good.data, cache=cache)
    good.picture("b", image=np.random.default_rng(9).integers(0, 255, SIZE, dtype=np.uint8))
    looked = []
    look_at = survey.look_at
    monkeypatch.setattr(survey, "look_at", lambda case, rule: looked.append(case.name) or look_at(case, rule=rule))
    second = look_at_all(good.data, cache=cache)
    assert looked == ["b"]
    assert second[0] == first[0]
    assert second[1] != first[1]
    cache.write_text("{")
    assert look_at_all(good.data, cache=cache) == second


def test_cancelled_in_the_middle(good, tmp_path):
    cancel, told = Cancel(), []

    def progress(done, total, message=""):
        told.append((done, total))
        cancel.set()

    with pytest.raises(Cancelled):
        look_at_all(good.data, cache=tmp_path / "f.json", workers=1, progress=progress, cancel=cancel)
    assert told == [(1, 3)]
    assert (tmp_path / "f.json").is_file()


@pytest.mark.parametrize(("folder", "count"), [("hippocampus_mri", 3), ("headneck_ct_openkbp", 6)])
def test_real_scans_are_sound(data_folder, folder, count):
    found = find_cases(data_folder / folder)
    some = make_split(replace(found, cases=found.cases[:12]), 1)
    assert check_data(some, [f"class {i}" for i in range(count)]) == []


def test_real_nuclei_number_objects(data_folder):
    found = find_cases(data_folder / "nuclei_dsb2018")
    some = replace(found, cases=tuple(replace(case, split="", patient="") for case in found.cases[:8]))
    kinds = {problem.kind for problem in check_data(some, ("background", "nucleus")) if problem.severity == "error"}
    assert kinds == {"label values"}
    assert not [p for p in check_data(replace(some, rule="objects")) if p.severity == "error"]
