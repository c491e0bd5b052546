"""Listing data sets in every layout that is understood, and loading one case."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from imageio.v3 import imwrite

from napari_medt.core import BadTrainingData, Geometry, LabelMap, Volume
from napari_medt.io import write
from napari_medt.training.datasets import find_cases, load_case

GEOMETRY = Geometry.from_spacing((3.0, 1.0, 1.0), units="mm", frame="patient")


def picture(path: Path, value: int = 0, size: tuple[int, ...] = (12, 14)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng(value).integers(0, 255, size, dtype=np.uint8)
    imwrite(path, array)
    return path


def mask(path: Path, values: tuple[int, ...] = (0, 1), size: tuple[int, int] = (12, 14)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    imwrite(path, np.resize(np.array(values, np.uint8), size))
    return path


def scan(path: Path, *, labels: bool = False, channels: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng(len(path.name)).integers(-5, 900, (channels, 4, 6, 5)).astype(np.int16)
    if labels:
        write(LabelMap((array[0] > 500).astype(np.uint8), GEOMETRY), path)
    else:
        write(Volume(array, GEOMETRY), path)
    return path


@pytest.fixture
def pair(tmp_path):
    for name in ("a", "b", "c"):
        picture(tmp_path / "images" / f"{name}.png", ord(name))
        mask(tmp_path / "labels" / f"{name}.png")
    return tmp_path


def names(found):
    return [case.name for case in found.cases]


def test_pair_of_folders(pair):
    found = find_cases(pair)
    assert (found.layout, names(found), found.problems, found.rule) == ("folders", ["a", "b", "c"], (), "classes")


def test_the_ending_may_differ(tmp_path):
    picture(tmp_path / "Images" / "a.jpg", size=(12, 14, 3))
    mask(tmp_path / "Masks" / "a.png")
    assert find_cases(tmp_path).cases[0].labels.name == "a.png"


def test_files_that_do_not_belong_are_passed_over_and_counted(pair):
    for name in ("Thumbs.db", ".DS_Store", "._a.png", "notes.txt", "desktop.ini"):
        (pair / "images" / name).write_bytes(b"x")
    (pair / "labels" / "._b.png").write_bytes(b"x")
    found = find_cases(pair)
    assert names(found) == ["a", "b", "c"]
    assert (found.ignored, found.problems) == (6, ())


def test_what_has_no_partner_is_told(pair):
    (pair / "labels" / "b.png").unlink()
    mask(pair / "labels" / "d.png")
    found = find_cases(pair)
    assert names(found) == ["a", "c"]
    assert [str(problem) for problem in found.problems] == [
        "b: b.png has no mask of the same name in labels; add the mask, or take the image out.",
        "d: The mask d.png has no image of the same name in images; add the image, or take the mask out.",
    ]


def test_names_that_differ_in_capital_letters_are_told_once(pair):
    (pair / "labels" / "b.png").rename(pair / "labels" / "B.PNG")
    assert [str(problem) for problem in find_cases(pair).problems] == [
        "b: b.png has no mask of the same name in labels; rename B.PNG, as capital and small letters count.",
    ]


def test_two_files_of_one_name_are_told(pair):
    picture(pair / "images" / "a.tif")
    assert "two files of this name in images, a.png and a.tif" in str(find_cases(pair).problems[0])


def test_no_pair_at_all(tmp_path):
    picture(tmp_path / "images" / "a.png")
    mask(tmp_path / "labels" / "b.png")
    with pytest.raises(BadTrainingData, match="give each mask the name of its image"):
        find_cases(tmp_path)


@pytest.mark.parametrize(("folder", "said"), [("nowhere", "There is no folder"), (".", "of no layout")])
def test_no_data_set(tmp_path, folder, said):
    with pytest.raises(BadTrainingData, match=said):
        find_cases(tmp_path / folder)


def test_several_folders_of_masks_must_be_chosen_from(pair):
    (pair / "labels").rename(pair / "labels_first")
    (pair / "labels_second").mkdir()
    with pytest.raises(BadTrainingData, match="labels_first, labels_second; say which"):
        find_cases(pair)
    assert len(find_cases(pair, labels="labels_first").cases) == 3


def test_index_says_split_group_and_patient(pair):
    (pair / "index.csv").write_text(
        "file,split,type,group_id\na.png,train,bright,7\nb.png,val,dark,8\nz.png,train,x,9\n"
    )
    found = find_cases(pair)
    a, b, c = found.cases
    assert (a.split, a.group, a.patient, a.unit) == ("train", "bright", "7", "patient 7")
    assert (b.split, c.split, c.unit) == ("validation", "", "case c")
    assert [problem.kind for problem in found.problems] == ["row without files", "no row"]
    assert [case.name for case in found.for_training] == ["a", "c"]


def test_index_with_semicolons_and_an_unknown_side(pair):
    (pair / "cases.csv").write_text("Case;Split\na;Training\nb;elsewhere\nc;TEST\n", encoding="utf-8-sig")
    found = find_cases(pair)
    assert [case.split for case in found.cases] == ["train", "", "test"]
    assert "puts it into 'elsewhere'" in str(found.problems[0])


def test_a_case_twice_in_the_index(pair):
    (pair / "index.csv").write_text("file,split\na.png,train\na.png,val\n")
    with pytest.raises(BadTrainingData, match="a.png stands twice in index.csv"):
        find_cases(pair)


def test_original_layout(tmp_path):
    for side, name in (("train", "a"), ("train", "b"), ("val", "a")):
        picture(tmp_path / side / "img" / f"{name}.png", size=(12, 14, 3))
        mask(tmp_path / side / "labelcol" / f"{name}.png", (0, 255, 90))
    one = find_cases(tmp_path / "train")
    assert (one.layout, one.rule, names(one)) == ("original", "white", ["a", "b"])
    both = find_cases(tmp_path)
    assert [(case.name, case.split) for case in both.cases] == [
        ("b", "train"),
        ("train-a", "train"),
        ("validation-a", "validation"),
    ]
    _, labels = load_case(both.cases[0], rule=both.rule)
    assert np.array_equal(np.unique(labels), [0, 1])
    assert labels.mean() == pytest.approx(1 / 3, abs=0.01)  # 90 of 255 is grey, not white


def decathlon(folder, channels=1, **more):
    for name in ("a", "b"):
        scan(folder / "imagesTr" / f"{name}.nii.gz", channels=channels)
        scan(folder / "labelsTr" / f"{name}.nii.gz", labels=True)
        (folder / "imagesTr" / f"._{name}.nii.gz").write_bytes(b"mac")
    description = {
        "modality": {str(i): name for i, name in enumerate(["FLAIR", "T1w"][:channels])},
        "labels": {"0": "background", "1": "tumour"},
        "training": [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in ("a", "b")],
        "test": ["./imagesTs/c.nii.gz"],
    } | more
    (folder / "dataset.json").write_text(json.dumps(description))


@pytest.mark.parametrize("channels", [1, 2])
def test_decathlon(tmp_path, channels):
    decathlon(tmp_path, channels)
    found = find_cases(tmp_path)
    assert (found.layout, names(found), found.ignored) == ("decathlon", ["a", "b"], 2)
    assert (found.modality, len(found.channels)) == ("FLAIR", channels)
    assert found.classes == {0: "background", 1: "tumour"}
    volume, labels = load_case(found.cases[0])
    assert volume.array.shape == (channels, 4, 6, 5)
    assert labels.shape == (4, 6, 5)


def test_decathlon_with_a_file_that_is_gone(tmp_path):
    decathlon(tmp_path)
    (tmp_path / "labelsTr" / "b.nii.gz").unlink()
    found = find_cases(tmp_path)
    assert names(found) == ["a"]
    assert "dataset.json names labelsTr/b.nii.gz, but there is no such file" in str(found.problems[0])


def nnunet(folder, description=None, channels=2):
    for name in ("a_1", "b_2"):
        for number in range(channels):
            scan(folder / "imagesTr" / f"{name}_{number:04}.nii.gz")
        scan(folder / "labelsTr" / f"{name}.nii.gz", labels=True)
    if description:
        (folder / "dataset.json").write_text(json.dumps(description))


def test_nnunet_1(tmp_path):
    nnunet(tmp_path)
    decathlon_words = {
        "modality": {"1": "T1", "0": "FLAIR"},
        "labels": {"0": "background", "1": "lesion"},
        "training": [{"image": "./imagesTr/a_1.nii.gz", "label": "./labelsTr/a_1.nii.gz"}],
    }
    (tmp_path / "dataset.json").write_text(json.dumps(decathlon_words))
    found = find_cases(tmp_path)
    assert (found.layout, names(found), found.channels) == ("nnunet", ["a_1", "b_2"], ("FLAIR", "T1"))
    assert [path.name for path in found.cases[0].images] == ["a_1_0000.nii.gz", "a_1_0001.nii.gz"]
    volume, _ = load_case(found.cases[0])
    assert volume.array.shape == (2, 4, 6, 5)


def test_nnunet_2(tmp_path):
    nnunet(tmp_path, {"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1, "b": 2}}, channels=1)
    scan(tmp_path / "imagesTs" / "t_0000.nii.gz")
    scan(tmp_path / "labelsTs" / "t.nii.gz", labels=True)
    found = find_cases(tmp_path)
    assert (found.modality, found.classes, found.regions) == ("CT", {0: "background", 1: "a", 2: "b"}, {})
    assert [(case.name, case.split) for case in found.cases] == [("a_1", ""), ("b_2", ""), ("t", "test")]


def test_nnunet_2_with_regions(tmp_path):
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}
    nnunet(tmp_path, {"channel_names": {"0": "zscore", "1": "T1"}, "labels": labels})
    found = find_cases(tmp_path)
    assert found.regions == {"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}
    assert found.classes == {0: "background", 1: "label 1", 2: "label 2", 3: "enhancing"}
    assert found.modality == "T1"


def test_nnunet_without_a_description_and_with_a_channel_missing(tmp_path):
    nnunet(tmp_path)
    (tmp_path / "imagesTr" / "b_2_0001.nii.gz").unlink()
    found = find_cases(tmp_path)
    assert (found.layout, names(found), found.classes) == ("nnunet", ["a_1"], {})
    assert "b_2: Its channel 0001 is missing in imagesTr" in str(found.problems[0])


@pytest.mark.parametrize("content", ["{", "[1]"])
def test_damaged_description(tmp_path, content):
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(BadTrainingData, match="get the data set again"):
        find_cases(tmp_path)


def test_reviewed_cases(tmp_path):
    from napari_medt.cases.folder import CaseFolder

    images, reviews = tmp_path / "images", tmp_path / "cases"
    for value, (name, status) in enumerate([("a", "accepted"), ("b", "draft")]):
        path = picture(images / "deep" / f"{name}.png", value)
        from napari_medt.io import read

        with CaseFolder.open(read(path), root=reviews) as folder:
            folder.save(np.eye(12, 14, dtype=np.uint8))
            folder.set_status(status)
    found = find_cases(reviews, images=images)
    assert [case.name[:2] for case in found.cases] == ["a-"]
    assert "The review of b.png has the status 'draft'" in str(found.problems[0])
    _, labels = load_case(found.cases[0])
    assert np.array_equal(labels, np.eye(12, 14))
    with pytest.raises(BadTrainingData, match="say as images where they are"):
        find_cases(reviews)


def test_a_folder_that_was_reviewed(tmp_path):
    from napari_medt.cases.worklist import Worklist

    for value, name in enumerate("ab"):
        picture(tmp_path / f"{name}.png", value)
    with Worklist.open(tmp_path) as review:
        review.refresh()
        for item in review.items:
            with review.open_case(item.key, review.load(item.key)) as case:
                case.save(np.eye(12, 14, dtype=np.uint8))
                case.accept("A. Reader")
        kept = review.cases_folder
    for folder in (tmp_path, kept):
        found = find_cases(folder)
        assert [case.name[:2] for case in found.cases] == ["a-", "b-"]
        assert [case.images for case in found.cases] == [((tmp_path / name),) for name in ("a.png", "b.png")]


def test_images_of_the_same_name_in_folders_of_patients_that_were_reviewed(tmp_path):
    from napari_medt.cases.worklist import Worklist

    for value, patient in enumerate(("anna", "bert")):
        picture(tmp_path / patient / "scan.png", value)
    with Worklist.open(tmp_path) as review:
        review.refresh()
        for item in review.items:
            with review.open_case(item.key, review.load(item.key)) as case:
                case.save(np.full((12, 14), 1 + (item.patient == "bert"), np.uint8))
                case.accept("A. Reader")
    found = find_cases(tmp_path)
    assert len(found.cases) == 2
    values = {case.images[0].parent.name: load_case(case)[1].max() for case in found.cases}
    assert values == {"anna": 1, "bert": 2}


def test_values_become_class_numbers(pair):
    mask(pair / "labels" / "a.png", (0, 1, 4, 2))
    _, labels = load_case(find_cases(pair).cases[0], values=(0, 1, 4))
    assert np.bincount(labels.ravel()).tolist() == [84, 42, 42]
    _, labels = load_case(find_cases(pair).cases[0], rule="objects")
    assert np.unique(labels).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("folder", "options", "count"),
    [
        ("nuclei_dsb2018", {}, 509),
        ("retina_chasedb1", {"labels": "labels_1stHO"}, 22),
        ("hippocampus_mri", {}, 208),
        ("headneck_ct_openkbp", {}, 79),
        ("axon_sem", {}, 6),
    ],
)
def test_real_data(data_folder, folder, options, count):
    found = find_cases(data_folder / folder, **options)
    assert (len(found.cases), found.problems) == (count, ())
    volume, labels = load_case(found.cases[0])
    assert labels.shape == volume.spatial_shape
    assert labels.any()
