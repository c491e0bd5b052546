"""`napari-medt evaluate`: pairs, grids, names, tables and files."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_medt._cli.pairing import list_pairs
from napari_medt._cli.wishes import parse_names
from napari_medt.core import BadImage, Geometry, LabelMap, MedtError
from napari_medt.io import write
from napari_medt.measure import compare

from .test_cli import call, image, runner, tiny_model  # noqa: F401

SPACING = (3.0, 0.8, 0.8)
SCAN = Geometry.from_spacing(SPACING, units="mm", frame="patient")


def scan(*boxes: tuple[slice, ...]) -> np.ndarray:
    """A scan with one structure a box, labelled from 1."""
    labels = np.zeros((10, 24, 26), np.uint8)
    for value, box in enumerate(boxes, start=1):
        labels[box] = value
    return labels


def box(z: int, y: int, x: int, size: int = 6) -> tuple[slice, ...]:
    return slice(z, z + 4), slice(y, y + size), slice(x, x + size)


TRUE = scan(box(2, 3, 3), box(4, 14, 14))
NEAR = scan(box(2, 4, 3), box(4, 14, 15))
MISSED = scan(box(2, 3, 3))


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    """Return predictions and references of three scans; the last prediction misses a structure."""
    pytest.importorskip("nibabel")
    for folder, suffix, masks in [("pred", "_mask", (TRUE, NEAR, MISSED)), ("ref", "", (TRUE, TRUE, TRUE))]:
        (tmp_path / folder).mkdir()
        for number, labels in enumerate(masks):
            write(LabelMap(labels, SCAN), tmp_path / folder / f"scan{number}{suffix}.nii.gz")
    return tmp_path / "pred", tmp_path / "ref"


def measured(*arguments: object, tmp_path: Path) -> dict:
    """What is written as JSON."""
    call("evaluate", *arguments, "--json", tmp_path / "scores.json")
    return json.loads((tmp_path / "scores.json").read_text())


def refused(*arguments: object) -> str:
    return call("evaluate", *arguments, code=2)


class TestObjects:
    @pytest.fixture
    def numbered(self, tmp_path):
        """A prediction of cells, and a reference that numbers them."""
        cells = np.zeros((60, 60), np.uint8)
        for number in range(25):
            row, column = divmod(number, 5)
            cells[12 * row : 12 * row + 6, 12 * column : 12 * column + 6] = number + 1
        for folder, labels in (("pred", cells > 0), ("ref", cells)):
            (tmp_path / folder).mkdir()
            tifffile.imwrite(tmp_path / folder / "cells.tif", labels.astype(np.uint8))
        return tmp_path / "pred", tmp_path / "ref"

    def test_a_hint_is_given(self, numbered):
        assert "Note: cells: The reference seems to number single objects: --binary" in call("evaluate", *numbered)

    def test_all_that_is_not_0_can_be_one_structure(self, numbered, tmp_path):
        found = measured(*numbered, "--binary", "--metrics", "dice", tmp_path=tmp_path)
        assert json.dumps(found).count("everything") == 2
        assert "1.0" in json.dumps(found)
        assert "do not go together" in refused(*numbered, "--binary", "--instances")

    def test_predictions_without_a_reference_are_told(self, numbered):
        tifffile.imwrite(numbered[0] / "more.tif", np.ones((60, 60), np.uint8))
        assert "Note: 1 without a reference were left out: more.tif" in call("evaluate", *numbered)

    def test_pictures_without_a_place_are_not_resampled(self, numbered):
        tifffile.imwrite(numbered[0] / "cells.tif", np.ones((30, 30), np.uint8))
        told = refused(*numbered, "--resample")
        assert "does not lie on the grid" in told
        assert "give --resample" not in told


class TestScores:
    def test_are_those_of_the_functions(self, folders, tmp_path):
        call("evaluate", *folders, "--csv", tmp_path / "scores.csv")
        with (tmp_path / "scores.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [(row["case"], row["structure"]) for row in rows] == [
            (f"scan{number}", f"label {value}") for number in range(3) for value in (1, 2)
        ]
        expected = compare(NEAR == 1, TRUE == 1, spacing=SPACING)
        names = {"hd95": "hd95_mm", "assd": "assd_mm", "volume_difference": "volume_difference_ml"}
        for name, score in expected.items():
            assert float(rows[2][names.get(name, name)]) == pytest.approx(score, rel=1e-6)
        assert (rows[5]["dice"], rows[5]["hd95_mm"]) == ("0.0", "inf")
        assert float(rows[5]["volume_difference_ml"]) == pytest.approx(-144 * math.prod(SPACING) / 1000, rel=1e-6)

    def test_json_says_everything(self, folders, tmp_path):
        found = measured(*folders, "--metrics", "dice,hd95", tmp_path=tmp_path)
        assert found["metrics"]["hd95"]["unit"] == "mm"
        assert "MONAI" in found["metrics"]["hd95"]["meaning"]
        summary = found["summary"]["label 2"]
        assert (summary["hd95"]["infinite"], summary["hd95"]["mean"]) == (1, "inf")
        assert summary["hd95"]["finite_mean"] == pytest.approx(0.4, rel=1e-6)
        assert summary["dice"]["low"] <= summary["dice"]["mean"] <= summary["dice"]["high"]
        assert found["summary"]["mean of all"]["dice"]["mean"] == pytest.approx(
            np.mean([case["dice"] for case in found["cases"]])
        )
        assert {"case": "scan2", "structure": "label 2", "dice": 0, "hd95": "inf"} in found["cases"]

    def test_table_names_the_worst_case_and_the_conventions(self, folders):
        text = call("evaluate", *folders, "--metrics", "dice,surface_dice", "--tolerance", 2)
        assert "0.000 scan2" in text
        assert "Tolerance of the surface Dice: 2 mm" in text
        assert "where only one has it, 0 and infinite" in text
        assert "Intervals of 3 cases say little" in text

    def test_one_case_has_scores_and_no_interval(self, folders):
        text = call("evaluate", folders[0] / "scan1_mask.nii.gz", folders[1] / "scan1.nii.gz", "--metrics", "all")
        assert "interval" not in text
        for title in ("HD95 (MedPy), mm", "ASSD (DeepMind), mm", "AP50", "Volume difference, ml"):
            assert title in text

    def test_a_structure_in_some_cases_only(self, tmp_path):
        pytest.importorskip("nibabel")
        for folder in ("a", "b"):
            (tmp_path / folder).mkdir()
            write(LabelMap(TRUE, SCAN), tmp_path / folder / "one.nii.gz")
            write(LabelMap(MISSED, SCAN), tmp_path / folder / "two.nii.gz")
        arguments = (tmp_path / "a", tmp_path / "b", "--metrics", "dice,hd95")
        agree = measured(*arguments, tmp_path=tmp_path)
        assert agree["cases"][3] == {"case": "two", "structure": "label 2", "dice": 1, "hd95": 0}
        neither = measured(*arguments, "--both-empty", "not-applicable", tmp_path=tmp_path)
        assert neither["cases"][3] == {"case": "two", "structure": "label 2", "dice": None, "hd95": None}
        assert neither["summary"]["label 2"]["dice"]["not_applicable"] == 1
        assert "2 (1 n/a)" in call("evaluate", *arguments, "--both-empty", "not-applicable")

    def test_pictures_with_255_for_1(self, tmp_path):
        mask = np.zeros((12, 12), np.uint8)
        mask[3:7, 3:7] = 1
        tifffile.imwrite(tmp_path / "pred.tif", mask)
        tifffile.imwrite(tmp_path / "ref.tif", mask * 255)
        found = measured(tmp_path / "pred.tif", tmp_path / "ref.tif", tmp_path=tmp_path)
        assert [(case["structure"], case["dice"]) for case in found["cases"]] == [("label 1", 1)]
        assert "255" in found["notes"][0]
        assert found["metrics"]["hd95"]["unit"] == "px"

    def test_instances(self, tmp_path):
        reference = np.zeros((20, 20), np.uint16)
        reference[2:6, 2:6], reference[10:14, 10:14], reference[2:6, 12:16] = 1, 2, 700
        prediction = reference.copy()
        prediction[reference == 700] = 0
        prediction[reference == 2] = 9
        tifffile.imwrite(tmp_path / "pred.tif", prediction)
        tifffile.imwrite(tmp_path / "ref.tif", reference)
        (case,) = measured(tmp_path / "pred.tif", tmp_path / "ref.tif", "--instances", tmp_path=tmp_path)["cases"]
        assert case["structure"] == "objects"
        assert (case["ap50"], case["recall_50"], case["precision_50"]) == (
            pytest.approx(2 / 3),
            pytest.approx(2 / 3),
            1,
        )
        assert case["dice"] == pytest.approx(2 * 32 / (32 + 48))

    def test_thousands_of_labels_are_objects(self, tmp_path):
        tifffile.imwrite(tmp_path / "ids.tif", np.arange(1600, dtype=np.uint16).reshape(40, 40))
        assert "--instances" in refused(tmp_path / "ids.tif", tmp_path / "ids.tif")


class TestNames:
    def test_of_the_files_go_before_numbers(self, tmp_path):
        pytest.importorskip("SimpleITK")
        turned = np.choose(TRUE, [0, 2, 1]).astype(np.uint8)
        write(LabelMap(TRUE, SCAN, names={1: "Liver", 2: "Spleen"}), tmp_path / "ref.seg.nrrd")
        write(LabelMap(turned, SCAN, names={1: "spleen", 2: "liver"}), tmp_path / "pred.seg.nrrd")
        found = measured(tmp_path / "pred.seg.nrrd", tmp_path / "ref.seg.nrrd", tmp_path=tmp_path)
        assert {case["structure"]: case["dice"] for case in found["cases"]} == {"Liver": 1, "Spleen": 1}
        assert "Liver has the label 1 in the reference and 2 in the prediction" in found["notes"][0]

    def test_of_one_side_serve_both(self, tmp_path):
        pytest.importorskip("SimpleITK")
        write(LabelMap(TRUE, SCAN, names={1: "liver", 2: "spleen"}), tmp_path / "ref.seg.nrrd")
        write(LabelMap(NEAR, SCAN), tmp_path / "pred.nii.gz")
        found = measured(tmp_path / "pred.nii.gz", tmp_path / "ref.seg.nrrd", tmp_path=tmp_path)
        assert [case["structure"] for case in found["cases"]] == ["liver", "spleen"]

    def test_given(self, folders, tmp_path):
        found = measured(*folders, "--names", "2=spleen", tmp_path=tmp_path)
        assert list(found["summary"]) == ["label 1", "spleen", "mean of all"]

    def test_the_same_for_two_labels_would_hide_one_of_them(self, folders):
        said = refused(*folders, "--names", "1=organ,2=organ")
        assert "are called organ; name them apart with --names" in " ".join(said.split())

    def test_understood(self):
        assert parse_names("1=liver, 7=left kidney") == {1: "liver", 7: "left kidney"}
        assert parse_names("liver,spleen") == {1: "liver", 2: "spleen"}

    @pytest.mark.parametrize("text", ["one=liver", "1=", "liver,,spleen"])
    def test_not_understood(self, text):
        with pytest.raises(MedtError, match="1=liver,2=spleen"):
            parse_names(text)


class TestGrids:
    @pytest.fixture
    def shifted(self, tmp_path) -> tuple[Path, Path]:
        """Return a prediction on a part of the reference's grid."""
        pytest.importorskip("nibabel")
        pytest.importorskip("SimpleITK")
        part = LabelMap(TRUE[1:, 2:, :], SCAN.part((1, 2, 0)))
        write(part, tmp_path / "pred.nii.gz")
        write(LabelMap(TRUE, SCAN), tmp_path / "ref.nii.gz")
        return tmp_path / "pred.nii.gz", tmp_path / "ref.nii.gz"

    def test_another_grid_is_refused_in_a_sentence(self, shifted):
        text = refused(*shifted)
        assert "ref: The prediction does not lie on the grid of the reference: 9 x 22 x 26 at 3 x 0.8 x 0.8 mm" in text
        assert "--resample" in text

    def test_resample(self, shifted, tmp_path):
        found = measured(*shifted, "--resample", tmp_path=tmp_path)
        assert [case["dice"] for case in found["cases"]] == [1, 1]
        assert found["settings"]["resampled"] is True
        assert "nearest label" in found["notes"][0]

    def test_the_same_shape_elsewhere(self, tmp_path):
        pytest.importorskip("nibabel")
        write(LabelMap(TRUE, SCAN.part((0, 0, 5))), tmp_path / "pred.nii.gz")
        write(LabelMap(TRUE, SCAN), tmp_path / "ref.nii.gz")
        assert "but elsewhere" in refused(tmp_path / "pred.nii.gz", tmp_path / "ref.nii.gz")

    def test_a_file_without_a_place(self, tmp_path):
        pytest.importorskip("nibabel")
        tifffile.imwrite(tmp_path / "pred.tif", TRUE, photometric="minisblack")
        write(LabelMap(TRUE, SCAN), tmp_path / "ref.nii.gz")
        found = measured(tmp_path / "pred.tif", tmp_path / "ref.nii.gz", tmp_path=tmp_path)
        assert found["settings"]["units"] == "mm"
        assert "does not say where it lies" in found["notes"][0]

    def test_every_bad_case_is_told_and_nothing_written(self, folders, tmp_path):
        for name in ("scan0_mask", "scan2_mask"):
            write(LabelMap(TRUE[1:], SCAN), folders[0] / f"{name}.nii.gz")
        text = refused(*folders, "--csv", tmp_path / "scores.csv")
        assert "scan0:" in text
        assert "scan2:" in text
        assert "scan1:" not in text
        assert not (tmp_path / "scores.csv").exists()

    def test_cases_of_different_kinds(self, folders):
        for folder, name in zip(folders, ("flat_mask.tif", "flat.tif"), strict=True):
            tifffile.imwrite(folder / name, TRUE[3])
        assert "2D in px and 3D in mm" in refused(*folders)


class TestPairs:
    @pytest.fixture
    def touch(self, tmp_path):
        def make(*names: str) -> Path:
            for name in names:
                (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / name).touch()
            return tmp_path

        return make

    @pytest.mark.parametrize(
        ("prediction", "reference"),
        [
            ("a.nii.gz", "a.nii.gz"),
            ("a_mask.tif", "a.png"),
            ("a_0000.nii.gz", "a.nii.gz"),
            ("a_pred.nrrd", "a_gt.seg.nrrd"),
        ],
    )
    def test_names_that_belong_together(self, touch, prediction, reference):
        home = touch(f"p/{prediction}", f"r/{reference}", "p/.DS_Store", "p/Thumbs.db", "r/notes.txt", "p/b.tif")
        (pair,) = list_pairs(home / "p", home / "r")
        assert (pair.name, pair.prediction.name, pair.reference.name) == ("a", prediction, reference)

    def test_equal_names_in_two_folders(self, touch):
        home = touch("p/x/a.tif", "p/y/a.tif", "r/x/a.tif", "r/y/a.tif")
        pairs = list_pairs(home / "p", home / "r")
        assert [pair.name for pair in pairs] == ["x/a", "y/a"]
        assert all(pair.prediction.parent.name == pair.reference.parent.name for pair in pairs)

    def test_missing_predictions_are_never_left_out(self, touch):
        home = touch("p/a.tif", "r/a.tif", "r/b.tif", "r/c.tif")
        with pytest.raises(BadImage, match=r"2 of 3 references have no prediction in .*: b\.tif, c\.tif"):
            list_pairs(home / "p", home / "r")

    def test_two_that_could_be_meant(self, touch):
        home = touch("p/a_mask.tif", "p/a_pred.tif", "r/a.tif")
        with pytest.raises(BadImage, match="could each belong to a.tif"):
            list_pairs(home / "p", home / "r")

    def test_a_file_and_a_folder(self, touch):
        home = touch("p.tif", "r/a.tif", "r/b.tif")
        with pytest.raises(BadImage, match="two files or two folders"):
            list_pairs(home / "p.tif", home / "r")

    def test_table(self, touch):
        home = touch("a.tif", "sub/b.tif")
        (home / "cases.csv").write_text("case;prediction;reference\nfirst;a.tif;sub/b.tif\n;sub/b.tif;a.tif\n;;\n")
        pairs = list_pairs(home / "cases.csv")
        assert [(pair.name, pair.prediction.name) for pair in pairs] == [("first", "a.tif"), ("a", "b.tif")]

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("case,image\n", "needs the columns prediction and reference"),
            ("prediction,reference\n", "lists no case"),
            ("prediction,reference\na.tif,\n", "Row 2 of cases.csv names only one file"),
            ("prediction,reference\na.tif,gone.tif\n", "gone.tif, which does not exist"),
            ("case,prediction,reference\nx,a.tif,a.tif\nx,a.tif,a.tif\n", "has the case x twice"),
        ],
    )
    def test_tables_that_do_not_say_enough(self, touch, text, sentence):
        home = touch("a.tif")
        (home / "cases.csv").write_text(text)
        with pytest.raises(BadImage, match=sentence):
            list_pairs(home / "cases.csv")

    def test_nothing_to_compare_with(self, touch):
        with pytest.raises(BadImage, match="nothing to be compared with"):
            list_pairs(touch("a.tif") / "a.tif")

    def test_nothing_there(self, tmp_path):
        assert "There is no file" in refused(tmp_path / "gone", tmp_path)


class TestWishes:
    def test_unknown_measure(self, folders):
        assert "no measure diice; choose from dice" in refused(*folders, "--metrics", "diice")

    def test_two_models_are_compared_case_by_case(self, tmp_path):
        for folder in ("first", "second", "ref"):
            (tmp_path / folder).mkdir()
        for number in range(7):
            reference = np.zeros((30, 30), np.uint8)
            reference[5:20, 5 : 12 + number] = 1
            for folder, by in (("first", 1), ("second", 4), ("ref", 0)):
                tifffile.imwrite(tmp_path / folder / f"{number}.tif", np.roll(reference, by, axis=0))
        found = measured(
            tmp_path / "first",
            tmp_path / "ref",
            "--against",
            tmp_path / "second",
            "--metrics",
            "hd95",
            tmp_path=tmp_path,
        )
        (test,) = found["against"]
        assert (test["pairs"], test["ties"], test["difference"]) == (7, 0, -3)
        assert test["wilcoxon_p"] == pytest.approx(2 / 2**7)
        text = call(
            "evaluate", tmp_path / "first", tmp_path / "ref", "--against", tmp_path / "second", "--metrics", "hd95"
        )
        assert "second, case by case" in text
        assert "0.0156" in text

    def test_a_model_segments_first(self, image, tiny_model, tmp_path):  # noqa: F811
        mask = tmp_path / "mask.tif"
        call("predict", image, "-m", tiny_model, "-o", mask, "--device", "cpu")
        (case,) = measured(image, mask, "-m", tiny_model, "--device", "cpu", tmp_path=tmp_path)["cases"]
        assert (case["structure"], case["dice"]) == ("thing", 1)

    def test_a_model_on_the_folders_of_the_published_code(self, image, tiny_model, tmp_path):  # noqa: F811
        for folder in ("img", "labelcol"):
            (tmp_path / "set" / folder).mkdir(parents=True)
        (tmp_path / "set" / "img" / "a.tif").write_bytes(image.read_bytes())
        tifffile.imwrite(tmp_path / "set" / "labelcol" / "a.tif", np.full((40, 52), 255, np.uint8))
        (case,) = measured(tmp_path / "set", "-m", tiny_model, "--device", "cpu", tmp_path=tmp_path)["cases"]
        assert 0 <= case["dice"] <= 1

    def test_model_and_against(self, folders):
        assert "do not go together" in refused(*folders, "-m", "medt-nuclei", "--against", folders[0])
