"""Many images, one model: listing them, the record of what is done, and what happens when something goes wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_medt import load_model, predict, read
from napari_medt.cohort import list_cases, run_cohort
from napari_medt.cohort.manifest import NAME, Manifest, Record, digest_of_output
from napari_medt.core import BadImage, Cancel, Cancelled, ClusterGone, MedtError, StorageError
from napari_medt.io import read_labels
from napari_medt.io.names import names_from_paths, safe_name, without_ending

from .dask_processes import cluster_of


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a model of a few thousand weights."""
    import torch

    from napari_medt.nets import create_net
    from napari_medt.zoo import Intensity, ModelCard, save_model

    torch.manual_seed(1)
    options = {"img_size": 32, "in_channels": 1, "num_classes": 2}
    card = ModelCard(
        name="tiny",
        title="Tiny",
        architecture="axial-unet",
        net_options=options,
        classes=("background", "thing"),
        channels="grey",
        window=(32, 32),
        intensity=Intensity(kind="percentile"),
    )
    folder = tmp_path_factory.mktemp("models") / "tiny"
    net = create_net("axial-unet", **options).eval()
    with torch.no_grad():  # so that half of the pixels are one thing and half the other
        found = net(torch.rand(4, 1, 32, 32))
        next(m for m in net.modules() if getattr(m, "out_channels", 0) == 2).bias[1] -= (
            found[:, 1] - found[:, 0]
        ).median()
    save_model(folder, card, net)
    return folder


@pytest.fixture
def pictures(tmp_path, rng):
    """Return a folder with two images of the same name, a third, and a damaged one."""
    folder = tmp_path / "pictures"
    for name in ("a/cells.tif", "b/cells.tif", "third/x.tif"):
        (folder / name).parent.mkdir(parents=True)
        tifffile.imwrite(folder / name, rng.integers(0, 4000, (40, 36), np.uint16), resolution=(2.0, 2.0), imagej=True)
    (folder / "broken.tif").write_bytes(b"II*\0 and then nothing")
    (folder / "notes.txt").write_text("not an image")
    return folder


def records(out: Path) -> dict[str, dict]:
    lines = (out / NAME).read_text(encoding="utf-8").splitlines()
    assert len(lines) == len({json.loads(line)["case"] for line in lines}), "a finished manifest has one line a case"
    return {json.loads(line)["case"]: json.loads(line) for line in lines}


def states(outcomes) -> dict[str, str]:
    return {outcome.case: outcome.state for outcome in outcomes}


class TestNames:
    @pytest.mark.parametrize(
        ("text", "name"),
        [("ct 1", "ct-1"), ("../../etc/passwd", "etc-passwd"), ("Müller, A", "Müller-A"), ("con", "_con"), ("???", "")],
    )
    def test_are_safe(self, text, name):
        assert safe_name(text) == name

    def test_endings_go_as_a_whole(self):
        names = ("x.nii.gz", "x.ome.tif", "x.seg.nrrd", "x.ome.zarr", "x.png", "x.1.2", "series")
        assert [without_ending(name) for name in names] == ["x", "x", "x", "x", "x", "x.1.2", "series"]

    def test_alike_only_for_the_eye(self, tmp_path):
        paths = [tmp_path / name for name in ("a b.png", "a-b.png", "A-B.tif", "c.png")]
        names = names_from_paths(paths)
        assert len({name.casefold() for name in names}) == 4
        assert names[3] == "c"
        assert names == names_from_paths(paths)


class TestListing:
    def test_table(self, tmp_path, pictures):
        table = pictures / "cases.csv"
        table.write_text(
            "\ufeffCase;Image;Mask;Choose\nfirst;a/cells.tif;masks/one.png;\n\n;b/cells.tif;;t=0|RAS\n",
            encoding="utf-8",
        )
        first, second = list_cases(table)
        assert (first.name, first.image, first.mask) == ("first", pictures / "a" / "cells.tif", "masks/one.png")
        assert (second.name, second.choose, second.mask) == ("b_cells", ("t=0", "RAS"), "")

    def test_several_files_of_one_patient_are_one_case(self, tmp_path):
        (tmp_path / "t.csv").write_text("case,image\nA,p/t1.tif | p/t2.tif\n")
        (case,) = list_cases(tmp_path / "t.csv")
        assert (case.image, case.channels) == (tmp_path / "p" / "t1.tif", (tmp_path / "p" / "t2.tif",))

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("picture\nx.tif\n", "no column image"),
            ("image\n", "lists no image"),
            ("image,case\nx.tif,A\ny.tif,a\n", "Rows 2 and 3 .* have the same case, a"),
            ("image,mask\nx.tif,m.tif\ny.tif,m.tif\n", "Rows 2 and 3 .* same mask"),
            ("image,mask\nx.tif,../m.tif\n", "Row 2 .* outside the folder"),
            ("image,mask\nx.tif,/m.tif\n", "Row 2 .* outside the folder"),
            ("image,case\n,first\n", "Row 2 .* names no image"),
        ],
    )
    def test_unusable_tables_say_why(self, tmp_path, text, said):
        (tmp_path / "t.csv").write_text(text)
        with pytest.raises(BadImage, match=said):
            list_cases(tmp_path / "t.csv")

    def test_table_that_is_none(self, tmp_path):
        (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00picture")
        with pytest.raises(BadImage, match="not text"):
            list_cases(tmp_path / "t.csv")
        with pytest.raises(BadImage, match="cannot be read"):
            list_cases(tmp_path / "nowhere.csv")

    def test_folder(self, pictures):
        (pictures / "out").mkdir()
        (pictures / "out" / "x_mask.tif").touch()
        (pictures / ".hidden.tif").touch()
        (pictures / "z.zarr" / "0").mkdir(parents=True)
        found = list_cases(pictures, leave_out=pictures / "out")
        assert [case.name for case in found] == ["a_cells", "b_cells", "broken", "third_x", "z"]

    def test_empty_folder(self, tmp_path):
        with pytest.raises(BadImage, match="no image"):
            list_cases(tmp_path)

    def test_every_series_of_a_folder_is_a_case_without_identifiers_in_its_name(self, tmp_path):
        pytest.importorskip("pydicom")
        for number in (1, 2):
            write_series(tmp_path / "scans", uid=f"1.2.826.0.{number}", start=number * 10)
        first, second = list_cases(tmp_path)
        assert first.name.startswith("scans-")
        assert first.name != second.name
        assert "1.2.826" not in first.name
        assert {case.choose for case in (first, second)} == {("1.2.826.0.1",), ("1.2.826.0.2",)}
        assert len(first.files) == 3


def write_series(folder: Path, *, uid: str, start: int) -> None:
    """Write three slices of a CT of a patient with a name."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    folder.mkdir(exist_ok=True)
    for index in range(3):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, f"{uid}.{index}"
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID, data.SeriesInstanceUID = CTImageStorage, f"{uid}.{index}", uid
        data.StudyInstanceUID, data.FrameOfReferenceUID, data.Modality = "1.2.826.1", "1.2.826.2", "CT"
        data.PatientName, data.PatientID, data.InstanceNumber = "Roe^Jane", "4711-secret", index + 1
        data.StudyDate = data.StudyTime = data.AccessionNumber = data.StudyID = data.PatientBirthDate = ""
        data.PatientSex, data.SeriesNumber, data.ReferringPhysicianName, data.Manufacturer = "", 1, "", ""
        data.ImagePositionPatient, data.ImageOrientationPatient = [0, 0, start + 2 * index], [1, 0, 0, 0, 1, 0]
        data.PixelSpacing, data.SliceThickness, data.Rows, data.Columns = [0.7, 0.7], 2, 40, 36
        data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 1
        data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
        data.RescaleSlope, data.RescaleIntercept, data.RescaleType = 1, -1024, "HU"
        data.PixelData = np.random.default_rng(start + index).integers(0, 2000, (40, 36), np.int16).tobytes()
        data.save_as(folder / f"{start + index}.dcm", enforce_file_format=True)


class TestManifest:
    def test_line_that_a_crash_cut_short_counts_as_never_written(self, tmp_path):
        record = Record("one", "x.tif", "0", "m@1", "1", {}, "done")
        Manifest(tmp_path).add(record)
        with (tmp_path / NAME).open("ab") as file:
            file.write(b'{"case": "two", "ima')
        manifest = Manifest(tmp_path)
        assert manifest.get("two") is None
        assert manifest.add(Record("two", "y.tif", "0", "m@1", "1", {}, "done")).get("one") == record
        assert list(records(tmp_path)) == ["one", "two"]

    def test_the_last_word_counts(self, tmp_path):
        for reason in ("no", "still no"):
            Manifest(tmp_path).add(Record("one", "x.tif", "0", "m@1", "1", {}, "failed", reason=reason))
        assert Manifest(tmp_path)["one"].reason == "still no"

    def test_what_somebody_else_wrote_is_not_overwritten(self, tmp_path):
        (tmp_path / NAME).write_text("hello\nworld\n")
        with pytest.raises(StorageError, match="Line 1"):
            Manifest(tmp_path)
        assert (tmp_path / NAME).read_text() == "hello\nworld\n"

    def test_folder_digest_knows_names_and_contents(self, tmp_path):
        digests = set()
        for name, content in (("a", b"1"), ("a", b"2"), ("b", b"2")):
            folder = tmp_path / f"{name}{content.decode()}"
            (folder / "in").mkdir(parents=True)
            (folder / "in" / name).write_bytes(content)
            digests.add(digest_of_output(folder))
        assert len(digests) == 3
        assert digest_of_output(tmp_path / "nowhere") == ""


def test_cohort_from_beginning_to_end(pictures, tiny_model, tmp_path, rng):
    """Failing cases are set aside; a second run does what changed and nothing else; corrections are not overwritten."""
    out, told = tmp_path / "out", []

    def run(options=None):
        cases = list_cases(pictures)
        report = lambda done, total, message="": told.append((done, total, message))  # noqa: E731
        return run_cohort(cases, out, model=str(tiny_model), device="cpu", options=options, progress=report)

    # First everything is new.
    outcomes = run()
    assert states(outcomes) == {"a_cells": "done", "b_cells": "done", "broken": "failed", "third_x": "done"}
    assert told[-1][:2] == (4, 4)
    by_case = records(out)
    assert "broken.tif" in by_case["broken"]["reason"]
    assert "Traceback" not in by_case["broken"]["reason"]
    record = by_case["a_cells"]
    assert record["outputs"] == {"a_cells_mask.tif": digest_of_output(out / "a_cells_mask.tif")}
    assert record["image_sha256"] == digest_of_output(pictures / "a" / "cells.tif")
    assert (record["model"], record["image"]) == ("tiny@1", "a/cells.tif")
    model = load_model(tiny_model, device="cpu")
    assert record["model_sha256"] == model.card.sha256
    for name in "ab":
        labels, geometry = read_labels(out / f"{name}_cells_mask.tif")
        assert 0 < labels.mean() < 1
        np.testing.assert_array_equal(labels, predict(model, read(pictures / name / "cells.tif")).labels)
        assert geometry.spacing == pytest.approx(read(pictures / name / "cells.tif").geometry.spacing)

    stamp = (out / "third_x_mask.tif").stat().st_mtime_ns

    # An image changed, the mask of another was corrected by somebody, and the damaged one was mended.
    tifffile.imwrite(pictures / "a" / "cells.tif", rng.integers(0, 4000, (40, 36), np.uint16))
    corrected = np.ones((40, 36), np.uint8)
    tifffile.imwrite(out / "b_cells_mask.tif", corrected)
    tifffile.imwrite(pictures / "broken.tif", rng.integers(0, 4000, (40, 36), np.uint16))
    assert states(run()) == dict.fromkeys(("a_cells", "b_cells", "broken"), "done") | {"third_x": "unchanged"}
    assert (out / "third_x_mask.tif").stat().st_mtime_ns == stamp
    np.testing.assert_array_equal(tifffile.imread(out / "b_cells_mask.tif.old1"), corrected)
    assert not (out / "a_cells_mask.tif.old1").exists(), "what nobody changed need not be kept"

    # Other settings are another result.
    assert set(states(run({"uncertainty": "margin"})).values()) == {"done"}
    assert set(records(out)["a_cells"]["outputs"]) == {"a_cells_mask.tif", "a_cells_uncertainty.tif"}


def test_crash_in_one_case_does_not_end_the_others(pictures, tiny_model, tmp_path, monkeypatch):
    """The process dies in the middle of an image, as when memory runs out; the next case gets a new one."""
    (tmp_path / "spoilt").mkdir()
    (tmp_path / "spoilt" / "sitecustomize.py").write_text(
        "import os, builtins, io\n"
        "from pathlib import Path\n"
        "real = Path.open\n"
        "def fatal(self, *args, **kwargs):\n"
        "    os.kill(os.getpid(), 9) if self.parent.name == 'a' and self.name == 'cells.tif' else None\n"
        "    return real(self, *args, **kwargs)\n"
        "Path.open = fatal\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "spoilt")
    outcomes = run_cohort(list_cases(pictures), tmp_path / "out", model=str(tiny_model), device="cpu")
    assert states(outcomes) == {"a_cells": "failed", "b_cells": "done", "broken": "failed", "third_x": "done"}
    assert "stopped unexpectedly, probably because memory ran out" in outcomes[0].reason


def test_cancel_keeps_what_is_finished(pictures, tiny_model, tmp_path):
    cancel = Cancel()

    def stop(done, total, message=""):
        if done == 1:
            cancel.set()

    with pytest.raises(Cancelled):
        run_cohort(list_cases(pictures), tmp_path / "out", model=str(tiny_model), progress=stop, cancel=cancel)
    assert list(records(tmp_path / "out")) == ["a_cells"]
    assert (tmp_path / "out" / "a_cells_mask.tif").exists()
    assert states(run_cohort(list_cases(pictures), tmp_path / "out", model=str(tiny_model)))["a_cells"] == "unchanged"


def test_nothing_that_names_the_patient_is_written(tiny_model, tmp_path):
    pytest.importorskip("highdicom")
    write_series(tmp_path / "scans", uid="1.2.826.0.1", start=0)
    (outcome,) = run_cohort(list_cases(tmp_path / "scans"), tmp_path / "out", model=str(tiny_model), device="cpu")
    assert outcome.state == "done", outcome.reason
    assert outcome.mask is not None
    assert outcome.mask.suffix == ".dcm"
    text = (tmp_path / "out" / NAME).read_text()
    assert "Roe" not in text
    assert "4711" not in text
    assert "1.2.826" not in text


def test_two_runs_do_not_share_a_folder(pictures, tiny_model, tmp_path):
    from napari_medt.cases.lock import CaseLock

    (tmp_path / "out").mkdir()
    lock = CaseLock(tmp_path / "out" / ".lock")
    assert lock.acquire()
    with pytest.raises(StorageError, match="Another run"):
        run_cohort(list_cases(pictures), tmp_path / "out", model=str(tiny_model))
    lock.release()


def test_masks_never_fall_on_each_other_or_on_an_image(pictures, tiny_model, tmp_path):
    table = pictures / "t.csv"
    table.write_text("image,case,mask\na/cells.tif,one,\nb/cells.tif,two,one_mask.tif\n")
    with pytest.raises(BadImage, match="same file"):
        run_cohort(list_cases(table), tmp_path / "out", model=str(tiny_model))
    table.write_text("image,mask\na/cells.tif,a/cells.tif\n")
    with pytest.raises(BadImage, match="overwrite"):
        run_cohort(list_cases(table), pictures, model=str(tiny_model))


def test_on_a_cluster_the_masks_are_the_same(pictures, tiny_model, tmp_path):
    """Each case goes to the workers block by block; which they are makes no difference to a later run."""
    pytest.importorskip("distributed")
    cases, out = list_cases(pictures), tmp_path / "out"
    with cluster_of(1, tmp_path) as processes:
        outcomes = run_cohort(cases, out, model=str(tiny_model), device="cpu", compute=processes.address)
    assert states(outcomes) == {"a_cells": "done", "b_cells": "done", "broken": "failed", "third_x": "done"}
    model = load_model(tiny_model, device="cpu")
    for name in ("a/cells", "b/cells", "third/x"):
        labels, _ = read_labels(out / f"{name.replace('/', '_')}_mask.tif")
        np.testing.assert_array_equal(labels, predict(model, read(pictures / f"{name}.tif")).labels)
    assert "127.0.0.1" not in (out / NAME).read_text()
    assert set(states(run_cohort(cases[:2], out, model=str(tiny_model), device="cpu")).values()) == {"unchanged"}


def test_scheduler_that_dies_leaves_the_other_cases_open(pictures, tiny_model, tmp_path):
    """No case is marked failed for it, and the same run again does what is left."""
    pytest.importorskip("distributed")
    (pictures / "broken.tif").unlink()
    cases, out = list_cases(pictures), tmp_path / "out"
    with cluster_of(1, tmp_path) as processes:

        def kill(done, total, message=""):
            if done == 1:
                processes.end()

        with pytest.raises(ClusterGone, match=r"1 of 3 cases are finished and stay; start it again"):
            run_cohort(cases, out, model=str(tiny_model), device="cpu", compute=processes.address, progress=kill)
    assert {name: record["state"] for name, record in records(out).items()} == {"a_cells": "done"}
    found = states(run_cohort(cases, out, model=str(tiny_model), device="cpu"))
    assert found == {"a_cells": "unchanged", "b_cells": "done", "third_x": "done"}


def test_scheduler_that_does_not_answer_is_said_before_any_case(pictures, tiny_model, tmp_path):
    pytest.importorskip("distributed")
    with pytest.raises(MedtError, match="does not answer"):
        run_cohort(list_cases(pictures), tmp_path / "out", model=str(tiny_model), compute="tcp://127.0.0.1:9")
    assert not (tmp_path / "out" / NAME).exists()
