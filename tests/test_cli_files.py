"""The commands that look at files and change their form, and `predict` for every kind of input."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import tifffile

import napari_medt
from napari_medt._cli.describe import LARGE, describe
from napari_medt._cli.wishes import parse_doubt, parse_region
from napari_medt.core import Geometry, LabelMap, MedtError, Volume
from napari_medt.io import read, read_segmentation, write

from .test_cli import call, image, runner  # noqa: F401
from .test_cohort import tiny_model, write_series  # noqa: F401


@pytest.fixture
def scan(rng) -> Volume:
    """Return a small oblique scan of a patient, in Hounsfield units."""
    turn = np.array([[1, 0, 0], [0, 0.96, -0.28], [0, 0.28, 0.96]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn * (2.5, 0.7, 0.8), (10, -20, 30)
    array = rng.integers(-1024, 2000, (1, 16, 40, 36), np.int16)
    return Volume(array, Geometry(affine, units="mm", frame="patient"))


@pytest.fixture
def nifti(scan, tmp_path) -> Path:
    pytest.importorskip("nibabel")
    return write(scan, tmp_path / "scan.nii.gz")


def shown(*arguments: object) -> dict:
    result = runner.invoke(napari_medt.cli.app, ["info", "--json", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


class TestWishes:
    def test_regions(self):
        assert parse_region("1:3,:, 5") == (slice(1, 3), slice(None), 5)
        assert parse_region("-4:,:9") == (slice(-4, None), slice(None, 9))

    @pytest.mark.parametrize("text", ["", "a:b", "1:2:3", "1;2"])
    def test_what_is_no_region(self, text):
        with pytest.raises(MedtError, match="10:60"):
            parse_region(text)

    def test_uncertainty_is_a_kind_or_a_file(self):
        assert parse_doubt("margin") == ("margin", None)
        assert parse_doubt("margin.tif") == ("entropy", Path("margin.tif"))


class TestInfo:
    def test_picture(self, image):  # noqa: F811
        found = shown(image)
        assert (found["format"], found["shape"], found["axes"], found["type"]) == (
            "TIFF",
            [40, 52],
            ["y", "x"],
            "uint16",
        )
        values = tifffile.imread(image)
        assert found["range"] == [values.min(), values.max()]
        assert found["orientation"] == ""
        text = call("info", image)
        assert "40 x 52 (y, x), uint16" in text
        assert "grey" in text

    def test_scan_says_where_it_lies(self, nifti, scan):
        found = shown(nifti)
        assert found["orientation"] == scan.geometry.orientation
        assert found["oblique"] is True
        assert found["spacing"] == pytest.approx(scan.geometry.spacing, abs=1e-5)
        np.testing.assert_allclose(found["affine"], scan.geometry.affine, atol=1e-4)
        assert found["range"] == [scan.array.min(), scan.array.max()]
        assert "tilted" in call("info", nifti)

    def test_names_of_labels(self, scan, tmp_path):
        pytest.importorskip("SimpleITK")
        mask = LabelMap((scan.array[0] > 0).astype(np.uint8), scan.geometry, {1: "liver"})
        found = shown(write(mask, tmp_path / "m.seg.nrrd"))
        assert found["labels"] == {"1": "liver"}
        assert "liver" in call("info", tmp_path / "m.seg.nrrd")

    def test_series_of_a_folder_and_how_to_choose(self, tmp_path):
        pytest.importorskip("pydicom")
        for number in (1, 2):
            write_series(tmp_path / "scans", uid=f"1.2.826.0.{number}", start=number * 10)
        found = shown(tmp_path / "scans")
        assert (
            {series["choose"] for series in found["series"]} == {"1.2.826.0.1", "1.2.826.0.2"} == set(found["choices"])
        )
        assert [series["shape"] for series in found["series"]] == [[3, 40, 36]] * 2
        one = shown(tmp_path / "scans", "--choose", "1.2.826.0.2")
        assert (one["shape"], one["modality"], one["value_unit"]) == ([3, 40, 36], "CT", "HU")
        text = call("info", tmp_path / "scans")
        assert "--choose 1.2.826.0.1" in text
        for secret in ("Roe", "Jane", "4711"):
            assert secret not in text + json.dumps(found) + json.dumps(one)

    def test_values_that_are_no_numbers_are_odd(self, tmp_path):
        tifffile.imwrite(tmp_path / "x.tif", np.array([[np.nan, 1], [2, np.inf]], np.float32))
        found = shown(tmp_path / "x.tif")
        assert found["range"] == [1, 2]
        assert any("NaN" in sentence for sentence in found["odd"])

    def test_of_a_huge_image_only_a_sample_is_read(self, tmp_path, monkeypatch):
        da = pytest.importorskip("dask.array")
        read_rows = []

        def block(block_info=None):
            location = block_info[None]["array-location"]
            read_rows.append(location[1])
            return np.full([b - a for a, b in location], location[1][0], np.uint16)

        huge = da.map_blocks(block, chunks=((1,), (1,) * 800, (1024,) * 2, (1024,) * 2), dtype=np.uint16)
        assert huge.nbytes > LARGE
        volume = Volume(huge, Geometry.from_spacing((1.0,) * 3))
        monkeypatch.setattr("napari_medt.io.read", lambda path, **options: volume)
        tifffile.imwrite(tmp_path / "x.tif", np.zeros((2, 2), np.uint8))
        found = describe(tmp_path / "x.tif")
        assert found["range_is_of_a_sample"] is True
        assert found["range"] == [0, 799]
        assert len(set(read_rows)) < 20

    @pytest.mark.parametrize("content", [None, b"", b"just text"])
    def test_bad_file_gives_one_sentence(self, content, tmp_path):
        if content is not None:
            (tmp_path / "bad.nii").write_bytes(content)
        text = call("info", tmp_path / "bad.nii", code=2)
        assert text.startswith("Error: ")
        assert "bad.nii" in text


class TestConvert:
    @pytest.mark.parametrize("ending", [".nii", ".nrrd", ".mha", ".ome.tif", ".tif"])
    def test_geometry_and_values_are_kept(self, nifti, scan, ending, tmp_path):
        pytest.importorskip("SimpleITK")
        call("convert", nifti, tmp_path / f"x{ending}")
        found = read(tmp_path / f"x{ending}")
        np.testing.assert_array_equal(np.asarray(found.array), scan.array)
        assert found.geometry.close_to(scan.geometry, shape=scan.spatial_shape)

    def test_names_of_labels_are_kept(self, scan, tmp_path):
        pytest.importorskip("SimpleITK")
        mask = LabelMap((scan.array[0] > 0).astype(np.uint8), scan.geometry, {1: "liver"})
        write(mask, tmp_path / "m.seg.nrrd")
        call("convert", tmp_path / "m.seg.nrrd", tmp_path / "m.nii.gz")
        call("convert", tmp_path / "m.nii.gz", tmp_path / "again.seg.nrrd")
        (found,) = read_segmentation(tmp_path / "again.seg.nrrd")
        assert found.names == {1: "liver"}
        np.testing.assert_array_equal(found.array, mask.array)

    def test_a_mask_becomes_a_dicom_segmentation_of_its_series(self, tmp_path):
        pytest.importorskip("highdicom")
        write_series(tmp_path / "scans", uid="1.2.826.0.1", start=0)
        source = read(tmp_path / "scans")
        labels = (np.asarray(source.array[0]) > 200).astype(np.uint8)
        write(LabelMap(labels, source.geometry, {1: "bone"}), tmp_path / "m.nii.gz")
        text = call("convert", tmp_path / "m.nii.gz", tmp_path / "m.dcm", code=2)
        assert "--like FOLDER" in text
        call("convert", tmp_path / "m.nii.gz", tmp_path / "m.dcm", "--like", tmp_path / "scans")
        (found,) = read_segmentation(tmp_path / "m.dcm", like=source)
        np.testing.assert_array_equal(found.array, labels)
        call("convert", tmp_path / "m.dcm", tmp_path / "back.nrrd", "--like", tmp_path / "scans")
        np.testing.assert_array_equal(read_segmentation(tmp_path / "back.nrrd")[0].array, labels)

    def test_never_over_itself(self, image):  # noqa: F811
        before = image.read_bytes()
        assert "overwrite" in call("convert", image, image, code=2)
        assert image.read_bytes() == before

    def test_unknown_ending(self, image, tmp_path):  # noqa: F811
        assert "x.bmp" in call("convert", image, tmp_path / "x.bmp", code=2)

    def test_image_and_mask_into_zarr(self, nifti, scan, tmp_path):
        pytest.importorskip("zarr")
        place = tmp_path / "scan.ome.zarr"
        call("convert", nifti, place)
        assert read(place).geometry.close_to(scan.geometry, shape=scan.spatial_shape)
        np.testing.assert_array_equal(read(place).array, scan.array)
        with pytest.raises(MedtError, match="negative"):
            read_segmentation(place)
        write(LabelMap((scan.array[0] > 0).astype(np.uint8), scan.geometry), tmp_path / "mask.nii.gz")
        assert "as a mask" in call("convert", tmp_path / "mask.nii.gz", place)
        assert (place / "labels" / "segmentation").is_dir()
        assert shown(place)["type"] == "int16"
        assert "would be lost" in call("convert", nifti, place, code=2)


class TestPredict:
    def test_scan_comes_back_in_its_place(self, nifti, scan, tiny_model, tmp_path):  # noqa: F811
        call("predict", nifti, "-m", tiny_model, "-o", tmp_path / "m.nii.gz", "--uncertainty", "margin", "--tta")
        (mask,) = read_segmentation(tmp_path / "m.nii.gz")
        assert mask.geometry.close_to(scan.geometry, shape=scan.spatial_shape)
        model = napari_medt.load_model(tiny_model, device="cpu")
        expected = napari_medt.predict(model, read(nifti), flips=True, uncertainty="margin")
        np.testing.assert_array_equal(mask.array, expected.labels)
        assert 0 < expected.labels.mean() < 1
        doubt = read(tmp_path / "m_uncertainty.nii.gz").array[0]
        np.testing.assert_allclose(doubt, expected.uncertainty, atol=1e-3)

    def test_only_a_region_in_another_plane(self, nifti, tiny_model, tmp_path):  # noqa: F811
        call(
            "predict",
            nifti,
            "-m",
            tiny_model,
            "-o",
            tmp_path / "m.nrrd",
            "--roi",
            "1:14,5:9,10:30",
            "--plane",
            "coronal",
        )
        labels = read_segmentation(tmp_path / "m.nrrd")[0].array
        model = napari_medt.load_model(tiny_model, device="cpu")
        region = (slice(1, 14), slice(5, 9), slice(10, 30))
        expected = napari_medt.predict(model, read(nifti), roi=region, plane="coronal").labels
        np.testing.assert_array_equal(labels, expected)
        assert labels.any()
        labels[region] = 0
        assert not labels.any()

    def test_mask_streams_into_a_zarr(self, nifti, tiny_model, tmp_path):  # noqa: F811
        pytest.importorskip("zarr")
        text = call("predict", nifti, "-m", tiny_model, "-o", tmp_path / "m.ome.zarr")
        assert "segmented by tiny@1" in text
        (mask,) = read_segmentation(tmp_path / "m.ome.zarr")
        expected = napari_medt.predict(napari_medt.load_model(tiny_model, device="cpu"), read(nifti)).labels
        np.testing.assert_array_equal(np.asarray(mask.array), expected)
        assert mask.names == {1: "thing"}

    def test_what_to_choose_from_is_listed_with_the_option_to_type(self, tiny_model, tmp_path):  # noqa: F811
        pytest.importorskip("pydicom")
        for number in (1, 2):
            write_series(tmp_path / "scans", uid=f"1.2.826.0.{number}", start=number * 10)
        target = tmp_path / "m.nii.gz"
        text = call("predict", tmp_path / "scans", "-m", tiny_model, "-o", target, code=2)
        assert "--choose 1.2.826.0.1" in text
        assert "--choose 1.2.826.0.2" in text
        assert not target.exists()
        call("predict", tmp_path / "scans", "-m", tiny_model, "-o", target, "--choose", "1.2.826.0.2")
        assert read_segmentation(target)[0].array.shape == (3, 40, 36)

    def test_each_question_can_be_answered_by_what_is_printed(self, tmp_path):
        pytest.importorskip("pydicom")
        from .io import dicom_made as made

        for series in ("1.2.826.0.1", "1.2.826.0.2"):
            slices = made.make_series(tmp_path / "scans", np.zeros((6, 4, 5)), made.positions(6), series=series)
            slices[2].unlink()
        asked: list[str] = []
        for answer in ("--choose 1.2.826.0.1", "--choose 'fill gaps'"):
            assert answer in call("convert", tmp_path / "scans", tmp_path / "o.nii.gz", *asked, code=2)
            assert answer in call("info", tmp_path / "scans", *asked)
            asked += shlex.split(answer)
        call("convert", tmp_path / "scans", tmp_path / "o.nii.gz", *asked)
        assert read(tmp_path / "o.nii.gz").spatial_shape == (6, 4, 5)

    def test_table_ends_with_a_summary_and_says_what_failed(self, image, tiny_model, tmp_path):  # noqa: F811
        table = tmp_path / "cases.csv"
        table.write_text("case,image\nfirst,cells.tif\nsecond,nowhere.tif\n")
        text = call("predict", table, "-m", tiny_model, "-o", tmp_path / "out", "--uncertainty", "entropy", code=2)
        assert "first segmented first_mask.tif" in text
        assert "nowhere.tif" in text
        assert "1 segmented, 0 as they were, 1 failed" in text
        table.write_text("case,image\nfirst,cells.tif\n")
        text = call("predict", table, "-m", tiny_model, "-o", tmp_path / "out", "--uncertainty", "entropy")
        assert "0 segmented, 1 as they were, 0 failed" in text

    def test_options_of_one_image_are_refused_for_many(self, tiny_model, tmp_path):  # noqa: F811
        (tmp_path / "t.csv").write_text("image\nx.tif\n")
        for option in (["--choose", "t=0"], ["--uncertainty", "u.tif"]):
            text = call("predict", tmp_path / "t.csv", "-m", tiny_model, "-o", tmp_path / "out", *option, code=2)
            assert "for one image" in text
