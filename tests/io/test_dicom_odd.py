from __future__ import annotations

import logging
import os

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom")

from pydicom.dataset import Dataset  # noqa: E402
from pydicom.fileset import FileSet  # noqa: E402

import napari_medt as medt  # noqa: E402
from napari_medt.core import BadImage, Cancel, Cancelled, LabelMap  # noqa: E402
from napari_medt.io import list_series, read_segmentation  # noqa: E402
from tests.io import dicom_made as made  # noqa: E402


@pytest.fixture
def block(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 3000, (6, 5, 7)).astype(np.int16)


@pytest.mark.parametrize("change", ["image", "mask"])
def test_a_file_that_claims_more_frames_than_it_has_room_for_is_refused_at_once(change, block, tmp_path):
    def claim(data: Dataset, index: int) -> None:
        data.NumberOfFrames = 2_000_000_000
        if change == "mask":
            data.Modality = "SEG"

    path = made.make_series(tmp_path, block[:1], made.positions(1), change=claim)[0]
    with pytest.raises(BadImage, match="says that it holds 2,000,000,000 frames"):
        (medt.read if change == "image" else read_segmentation)(path)
    if change == "image":
        with pytest.raises(BadImage, match="no DICOM image that can be read: 1 file in the folder cannot be read"):
            medt.read(tmp_path)


def test_an_empty_file_among_slices_is_told_as_unreadable(block, tmp_path):
    made.make_series(tmp_path, block, made.positions(6))[-1].write_bytes(b"")
    volume = medt.read(tmp_path)
    assert volume.array.shape == (1, 5, 5, 7)
    assert volume.notes == ("1 file in the folder cannot be read and is left out",)


def test_the_table_of_contents_of_a_disc_stands_for_the_disc(block, tmp_path):
    disc = FileSet()
    for path in made.make_series(tmp_path / "scan", block, made.positions(6)):
        disc.add(path)
    disc.write(tmp_path / "disc")
    contents = tmp_path / "disc" / "DICOMDIR"
    assert np.array_equal(medt.read(contents).array, medt.read(tmp_path / "scan").array)
    assert [series.shape for series in list_series(contents)] == [(6, 5, 7)]


def test_a_palette_of_16_bits_gives_the_8_bits_of_its_pixels(tmp_path):
    def palette(data: Dataset, index: int) -> None:
        data.PhotometricInterpretation = "PALETTE COLOR"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
        for place, colour in enumerate(("Red", "Green", "Blue")):
            table = ((np.arange(256) * (place + 1)) % 256 * 256).astype("<u2")
            setattr(data, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
            setattr(data, f"{colour}PaletteColorLookupTableData", table.tobytes())
        data.PixelData = np.arange(30, dtype=np.uint8).tobytes()

    path = made.make_series(tmp_path, np.zeros((1, 5, 6)), None, modality="OT", change=palette)[0]
    volume = medt.read(path)
    assert volume.array.dtype == np.uint8
    assert np.array_equal(volume.array, np.arange(30).reshape(5, 6) * np.array([1, 2, 3])[:, None, None])


def test_what_the_file_leaves_open_is_noted(block, tmp_path):
    def no_rescale(data: Dataset, index: int) -> None:
        data.RescaleSlope = data.RescaleIntercept = None

    def mosaic(data: Dataset, index: int) -> None:
        data.ImageType = ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]

    made.make_series(tmp_path / "raw", block, made.positions(6), change=no_rescale)
    made.make_series(tmp_path / "sparse", block, made.positions(6, step=9.0))
    made.make_series(tmp_path / "mosaic", block[:1], made.positions(1), modality="MR", change=mosaic)
    raw = medt.read(tmp_path / "raw")
    assert raw.acquisition.value_unit == ""
    assert "does not say how its values become HU" in raw.notes[0]
    assert medt.read(tmp_path / "sparse").notes == (
        "The slices lie 9 mm apart but are 3 mm thick, so some may be missing",
    )
    assert "mosaic of slices" in medt.read(tmp_path / "mosaic").notes[0]


def test_reading_tells_how_far_it_is_and_stops_when_asked(block, tmp_path):
    made.make_series(tmp_path, block, made.positions(6))
    told: list[tuple[int, int, str]] = []
    medt.read(tmp_path, progress=lambda *step: told.append(step))
    assert (6, 6, "Reading DICOM headers") in told
    assert [step[:2] for step in told if step[2] == "Reading DICOM slices"] == [(i, 6) for i in range(1, 7)]
    for stop_at in ("Reading DICOM headers", "Reading DICOM slices"):
        cancel = Cancel()

        def stop(done: int, total: int, message: str = "", /, *, at: str = stop_at, ask: Cancel = cancel) -> None:
            if (done, message) == (2, at):
                ask.set()

        with pytest.raises(Cancelled):
            medt.read(tmp_path, progress=stop, cancel=cancel)


def test_what_is_no_ordinary_file_does_not_stop_a_folder(block, tmp_path):
    made.make_series(tmp_path, block, made.positions(6))
    os.mkfifo(tmp_path / "waiting")
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    volume = medt.read(tmp_path)
    assert volume.array.shape == (1, 6, 5, 7)
    assert volume.notes == ("1 file in the folder cannot be read and is left out",)


# --------------------------------------------------------------------------------------------------------------- masks


def _mask(block: np.ndarray) -> np.ndarray:
    return (block % 3).astype(np.uint8)


def test_a_mask_goes_on_a_scan_whose_dates_and_times_are_of_an_old_form(block, tmp_path):
    def old(data: Dataset, index: int) -> None:
        data.StudyDate, data.StudyTime, data.PatientBirthDate, data.PatientSex = "1994.03.02", "14:04:38", "195", "x"
        data.Modality = ""

    with pytest.warns(UserWarning, match="Invalid value for VR"):
        made.make_series(tmp_path / "s", block, made.positions(6), change=old)
    volume = medt.read(tmp_path / "s")
    path = medt.write(_mask(block), tmp_path / "m.dcm", source=volume)
    data = pydicom.dcmread(path)
    found = [str(data[keyword].value) for keyword in ("StudyDate", "StudyTime", "PatientBirthDate", "PatientSex")]
    assert found == ["19940302", "140438", "", ""]
    assert np.array_equal(read_segmentation(path, like=volume)[0].array, _mask(block))


def test_names_of_segments_are_one_line_each_and_never_empty(block, tmp_path):
    made.make_series(tmp_path / "s", block, made.positions(6))
    volume = medt.read(tmp_path / "s")
    mask = LabelMap(_mask(block), volume.geometry, {1: "liver\\left\nlobe", 2: " \t"})
    path = medt.write(mask, tmp_path / "m.dcm", source=volume)
    assert [one.SegmentLabel for one in pydicom.dcmread(path).SegmentSequence] == ["liver left lobe", "label 2"]


def test_a_mask_that_cannot_be_placed_is_refused(block, tmp_path):
    paths = made.make_series(tmp_path / "s", block, made.positions(6))
    volume = medt.read(tmp_path / "s")
    for ending in (".dcm", ".nii.gz"):
        with pytest.raises(BadImage, match="values are 6 x 4 x 7 and their image is 6 x 5 x 7"):
            medt.write(_mask(block)[:, :4], tmp_path / f"m{ending}", source=volume)

    def film(data: Dataset, index: int) -> None:
        data.NumberOfFrames, data.PixelData = 6, block.astype("<i2").tobytes()

    moving = made.make_series(tmp_path / "film", block[:1], None, modality="US", change=film)[0]
    for choose, shape in (("t=3", (5, 7)), ("as slices", (6, 5, 7))):
        with pytest.raises(BadImage, match="do not say where they lie"):
            medt.write(np.ones(shape, np.uint8), tmp_path / "m.dcm", source=medt.read(moving, choose=choose))
    paths[2].unlink()
    with pytest.raises(BadImage, match="cannot be opened: No such file"):
        medt.write(_mask(block), tmp_path / "m.dcm", source=volume)
    assert not list(tmp_path.glob("m*"))


def test_an_empty_mask_is_written_in_silence(block, tmp_path, caplog, recwarn):
    made.make_series(tmp_path / "s", block, made.positions(6))
    volume = medt.read(tmp_path / "s")
    caplog.set_level(logging.WARNING)
    medt.write(np.zeros(block.shape, np.uint8), tmp_path / "m.dcm", source=volume, names={1: "liver"})
    assert not caplog.text
    assert not recwarn.list


def test_a_name_that_cannot_be_decoded_is_kept_out_of_descriptions(block, tmp_path):
    path = made.make_series(tmp_path, block[:1], made.positions(1))[0]
    spoilt = path.read_bytes().replace(b"ISO_IR 100", b"ISO_IR 192").replace(b"rat^Xaver", b"rat\xfc\xe9\xff\xfe^a")
    path.write_bytes(spoilt)
    with pytest.warns(UserWarning, match="Failed to decode byte string"):
        (series,) = list_series(tmp_path)
    assert series.description == "Test of …"
