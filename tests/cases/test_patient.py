"""Whose an image is: by its file and the folders around it, whatever was opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_medt.cases import Worklist, former_names, patient_of
from napari_medt.io import read


@pytest.fixture
def tree(tmp_path):
    """Returns a function that makes files, and says whose each is."""

    def make(*places: str) -> dict[str, str]:
        for place in places:
            path = tmp_path / "top" / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"image")
        return {place: patient_of(tmp_path / "top" / place) for place in places}

    return make


def test_a_file_is_a_patient_under_its_name(tree):
    found = tree("study/a.nii.gz", "study/b c.nrrd", "study/d_0000.nii.gz")
    assert list(found.values()) == ["a", "b-c", "d"]


def test_folders_of_sets_are_no_patients(tree):
    """As in the Decathlon and for nnU-Net, where a file is a channel."""
    found = tree(
        *(f"imagesTr/spleen_{n}_{channel:04}.nii.gz" for n in (2, 3) for channel in (0, 1)),
        *(f"labelsTr/spleen_{n}.nii.gz" for n in (2, 3)),
        "imagesTs/spleen_7_0000.nii.gz",
        "train_images/0001.png",
    )
    assert sorted(set(found.values())) == ["0001", "spleen_2", "spleen_3", "spleen_7"]


def test_a_numbered_series_outside_is_of_several_patients(tree):
    assert len(set(tree(*(f"study/img_{n:04}.png" for n in range(5))).values())) == 5


@pytest.mark.parametrize(
    "places",
    [
        [f"{who}/{scan}.nii.gz" for who in ("anna", "ben", "carl") for scan in ("t1", "t2", "flair", "ct")],
        [f"B_{n}/B_{n}_{scan}.nii.gz" for n in range(4) for scan in ("t1", "t2", "flair")],
        ["anna/one.tif", "anna/two.tif", "scan.nii.gz"],
        [f"P{n}/{slice_}.png" for n in range(5) for slice_ in range(18)],
    ],
)
def test_small_folders_beside_each_other_are_patients(tree, places):
    for place, patient in tree(*places).items():
        assert patient == (Path(place).parts[0] if "/" in place else "scan")


def test_few_folders_of_many_images_are_sets(tree):
    found = tree(*(f"nuclei/n{n}.png" for n in range(9)), *(f"discs/d{n}.png" for n in range(9)))
    assert len(set(found.values())) == 18


def test_visits_belong_to_their_patient(tree):
    found = tree(
        *(f"sub-{n}/ses-{visit}/anat/sub-{n}_ses-{visit}_T1w.nii.gz" for n in (1, 2) for visit in (1, 2)),
        "anna/visit 1/ct.nii.gz",
        "anna/visit 2/ct.nii.gz",
    )
    assert set(found.values()) == {"sub-1", "sub-2", "anna"}


def test_earlier_names_are_known(tmp_path):
    assert former_names(tmp_path / "study" / "scan_0000.nii.gz", "scan") == ("scan_0000.nii.gz", "scan_0000", "study")
    assert former_names(tmp_path / "images" / "scan.nii.gz", "scan") == ("scan.nii.gz", "scan")
    assert former_names(tmp_path / "anna" / "one.tif", "anna") == ()
    assert "anna.tif" in former_names(tmp_path / "anna" / "anna.tif", "anna"), "it may have been opened alone"


@pytest.mark.parametrize("layout", ["flat", "series in folders"])
def test_all_series_of_a_dicom_patient_are_of_one(tmp_path, rng, layout):
    from tests.io import dicom_made as made

    scan = rng.integers(0, 2000, (3, 12, 10))
    for number, who in enumerate(("4711", "4711", "4712")):

        def of(data, _, who=who):
            data.PatientID = who

        folder = tmp_path / "scans" / ("" if layout == "flat" else f"series{number}")
        made.make_series(folder, scan, made.positions(3), series=f"1.2.3.7{number}", change=of)
    with Worklist.open(tmp_path / "scans") as worklist:
        patients = [item.patient for item in worklist.items]
        assert len(patients) == 3
        assert len(set(patients)) == 2
        for item in worklist.items:
            alone = read(item.image.path, choose=item.image.choose)
            assert patient_of(item.image.path, alone.acquisition.patient) == item.patient
            one = read(Path(item.image.files[0]))
            assert one.acquisition.patient == item.patient
            assert "471" not in repr(alone.acquisition).replace(str(tmp_path), "").replace(item.patient, "")


@pytest.mark.parametrize("said", ["", "ANONYMOUS", "Anon_00", "0000"])
def test_without_an_id_a_dicom_study_is_of_one_patient(said):
    from pydicom.dataset import Dataset

    from napari_medt.io.dicom_header import patient

    def header(study: str) -> Dataset:
        data = Dataset()
        data.PatientID, data.StudyInstanceUID = said, study
        return data

    assert patient(header("1.2.3")) == patient(header("1.2.3")) != patient(header("1.2.4"))
    assert patient(Dataset()) == ""


def test_pseudonyms_tell_patients_apart():
    from pydicom.dataset import Dataset

    from napari_medt.io.dicom_header import patient

    def header(said: str, study: str) -> Dataset:
        data = Dataset()
        data.PatientID, data.StudyInstanceUID = said, study
        return data

    assert (
        patient(header("ANON0042", "1.2.3"))
        == patient(header("ANON0042", "1.2.4"))
        != patient(header("ANON0043", "1.2.3"))
    )
