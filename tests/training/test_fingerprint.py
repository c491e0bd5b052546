"""What a data set is like: shapes, spacings, values inside structures, sizes of classes, kind of image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from imageio.v3 import imwrite

from napari_medt.core import Acquisition, BadTrainingData, Geometry, LabelMap, Volume
from napari_medt.io import write
from napari_medt.training.datasets import find_cases
from napari_medt.training.fingerprint import Fingerprint, fingerprint
from napari_medt.training.modality import kind_named, kind_of


def place(frame="patient", spacing=(3.0, 1.0, 1.0)):
    return Geometry.from_spacing(spacing, units="mm" if frame == "patient" else "px", frame=frame)


@pytest.fixture
def scans(tmp_path):
    """Four scans with two classes of known values; the last is held out."""
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
    for number, name in enumerate("abcd"):
        labels = np.zeros((6, 10, 10), np.uint8)
        labels[1, :5] = 1
        if number:
            labels[2, :2] = 4
        image = np.where(labels == 1, 100, np.where(labels == 4, 200, -1000)) + np.int64(number)
        write(Volume(image[None].astype(np.int16), place()), tmp_path / "images" / f"{name}.nii.gz")
        write(LabelMap(labels, place()), tmp_path / "labels" / f"{name}.nii.gz")
    (tmp_path / "index.csv").write_text("case,split\na,train\nb,train\nc,\nd,test\n")
    return tmp_path


def test_classes_and_values(scans):
    found = fingerprint(find_cases(scans), {0: "background", 1: "liver"})
    assert [case.name for case in found.cases] == ["a", "b", "c"]
    assert found.dims == 3
    liver, other = found.classes[1], found.classes[4]
    assert (liver.name, liver.cases, liver.voxels, liver.share) == ("liver", 3, 150, pytest.approx(50 / 600))
    assert (other.name, other.cases, other.voxels) == ("label 4", 2, 40)
    (values,) = found.values
    # 50 voxels of 100 a case; in two cases 20 more of about 200.
    expected = np.concatenate([np.full(500, 100), *[np.repeat([100 + i, 200 + i], [357, 143]) for i in (1, 2)]])
    assert values.mean == pytest.approx(expected.mean(), rel=0.005)
    assert values.deviation == pytest.approx(expected.std(), rel=0.02)
    assert (values.low, values.high) == (100, 202)
    assert found.value_range == (-1000, 202)


def test_percentiles_are_those_of_all_voxels(tmp_path, rng):
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
    image = rng.normal(50, 200, (20, 40, 40)).astype(np.float32)
    write(Volume(image[None], place()), tmp_path / "images" / "a.nii.gz")
    write(LabelMap((image > -1e9).astype(np.uint8), place()), tmp_path / "labels" / "a.nii.gz")
    (values,) = fingerprint(find_cases(tmp_path)).values
    low, high = np.percentile(image, (0.5, 99.5))
    assert (values.low, values.high) == (pytest.approx(low, rel=0.02), pytest.approx(high, rel=0.02))
    assert values.deviation == pytest.approx(image.std(), rel=0.01)


def test_to_json_and_back(scans):
    found = fingerprint(find_cases(scans))
    assert Fingerprint.model_validate_json(found.model_dump_json()) == found


def test_the_cache_gives_the_same(scans, tmp_path):
    cache = tmp_path / "facts.json"
    first = fingerprint(find_cases(scans), cache=cache)
    for file in (scans / "images").iterdir():
        stat = file.stat()
        file.write_bytes(b"\0" * stat.st_size)
        import os

        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as if it had not changed: it must not be read
    assert fingerprint(find_cases(scans), cache=cache) == first


def test_objects_are_one_class(scans):
    found = fingerprint(replace(find_cases(scans), rule="objects"))
    assert {value: size.name for value, size in found.classes.items()} == {0: "background", 1: "object"}


def test_nothing_that_can_be_used(scans):
    for file in (scans / "labels").iterdir():
        file.write_bytes(b"no mask")
    with pytest.raises(BadTrainingData, match="No case of .* can be learnt from; check the data"):
        fingerprint(find_cases(scans))


def test_pictures_and_scans_are_not_mixed(scans):
    imwrite(scans / "images" / "p.png", np.eye(9, dtype=np.uint8))
    imwrite(scans / "labels" / "p.png", np.eye(9, dtype=np.uint8))
    with pytest.raises(BadTrainingData, match="mixes 2D images and scans"):
        fingerprint(find_cases(scans))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("CT", "ct"),
        ("MRI", "mr"),
        ("T1-weighted MR", "mr"),
        ("FLAIR", "mr"),
        ("fundus photographs", "fundus"),
        ("x", ""),
    ],
)
def test_kinds_by_name(text, kind):
    assert kind_named(text) == kind


def test_kinds_by_what_is_seen(rng):
    grey = Volume(rng.integers(0, 255, (1, 64, 64), dtype=np.uint8), place("image", (1.0, 1.0)))
    assert kind_of(grey) == "microscopy"
    eye = np.zeros((3, 100, 100), np.uint8)
    y, x = np.ogrid[:100, :100]
    eye[:, (y - 50) ** 2 + (x - 50) ** 2 < 45**2] = np.array([200, 90, 40])[:, None]
    assert kind_of(Volume(eye, place("image", (1.0, 1.0)))) == "fundus"
    said = Volume(rng.normal(0, 1, (1, 4, 8, 8)), place(), acquisition=Acquisition(modality="MR"))
    assert kind_of(said) == "mr"


@pytest.mark.parametrize(
    ("folder", "options", "kind", "dims"),
    [
        ("nuclei_dsb2018", {"rule": "objects"}, "microscopy", 2),
        ("retina_chasedb1", {"labels": "labels_1stHO"}, "fundus", 2),
        ("hippocampus_mri", {}, "mr", 3),
        ("headneck_ct_openkbp", {}, "ct", 3),
    ],
)
def test_real_data(data_folder: Path, folder, options, kind, dims):
    found = find_cases(data_folder / folder, **options)
    first = [case for case in found.cases if case.split == "train"][:4]
    data = fingerprint(replace(found, cases=tuple(first)))
    assert (data.kind, data.dims, len(data.cases)) == (kind, dims, 4)
    assert data.classes[1].cases == 4
    if kind == "ct":
        assert -300 < data.values[0].low < 0
        assert 500 < data.values[0].high < 2500
