"""napari opens and saves files through us: what lies where in the patient, and comes back there to the voxel."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels
from npe2 import PluginManager, PluginManifest

from napari_medt._napari_io import asking, get_reader, write_image, write_labels
from napari_medt._napari_io.as_layers import contrast_limits
from napari_medt._napari_io.origin import FILE_KEY, Origin
from napari_medt._napari_io.reading import name_of
from napari_medt._system import display_answers
from napari_medt.core import Acquisition, AmbiguousImage, AxisMap, BadImage, Choice, Geometry, LabelMap, Volume
from napari_medt.io import read, read_segmentation, write
from napari_medt.widgets.layers import OurLayers

nib = pytest.importorskip("nibabel")
sitk = pytest.importorskip("SimpleITK")

SHAPE_XYZ = (9, 8, 7)


@pytest.fixture
def viewer():
    return ViewerModel()


@pytest.fixture
def manager():
    made = PluginManager()
    made.register(PluginManifest.from_file(Path(__file__).parents[1] / "napari_medt" / "napari.yaml"))
    return made


def opened(viewer, *paths):
    """Open as napari does with what a reader returns."""
    names = [str(path) for path in paths]
    path = names[0] if len(names) == 1 else names
    return [layer for data in get_reader(path)(path) for layer in viewer._add_layer_from_data(*data)]


def saved(layer, path):
    data, attributes, kind = layer.as_layer_data_tuple()
    return (write_labels if kind == "labels" else write_image)(str(path), data, attributes)


def nifti(path, letters="LPI", *, degrees=0.0, values=None):
    """A scan of different spacings whose voxel numbers are their values."""
    axes = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
    affine = np.eye(4)
    affine[:3, :3] = 0
    for column, (letter, step) in enumerate(zip(letters, (1.5, 2.0, 2.5), strict=True)):
        axis, sign = axes[letter]
        affine[axis, column] = sign * step
    turn = np.radians(degrees)
    about_x = np.eye(4)
    about_x[1:3, 1:3] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    affine = about_x @ affine
    affine[:3, 3] = (-11, 22, 33)
    if values is None:
        values = np.arange(np.prod(SHAPE_XYZ), dtype=np.int16).reshape(SHAPE_XYZ)
    nib.save(nib.Nifti1Image(values, affine), path)
    return affine, values


ORIENTATIONS = [
    "".join(p) for letters in itertools.permutations(("RL", "AP", "SI")) for p in itertools.product(*letters)
]


@pytest.mark.parametrize("letters", ORIENTATIONS)
def test_a_mask_goes_back_to_the_voxels_of_the_scan(tmp_path, viewer, letters):
    """In the viewer z, y, x run to head, back, left; on disk everything is as it was in the file."""
    affine, values = nifti(tmp_path / "scan.nii.gz", letters)
    (image,) = opened(viewer, tmp_path / "scan.nii.gz")
    chosen = np.isin(np.asarray(image.data), values[2:4, 1, 5])
    mask = OurLayers(viewer).add_mask(image, chosen.astype(np.uint8), classes=2)
    here = [image.data_to_world(index) for index in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))]
    for axis in range(3):
        step = np.subtract(here[axis + 1], here[0])
        assert step[axis] > 0
        np.testing.assert_allclose(np.delete(step, axis), 0, atol=1e-6)
    saved(mask, tmp_path / "mask.nii.gz")
    back = nib.load(tmp_path / "mask.nii.gz")
    np.testing.assert_allclose(back.affine, affine, atol=1e-4)
    np.testing.assert_array_equal(np.argwhere(np.asarray(back.dataobj)), [[2, 1, 5], [3, 1, 5]])


@pytest.mark.parametrize("letters", ["RAS", "LPI", "SRA"])
def test_an_oblique_scan_is_shown_straight_and_masked_on_its_own_grid(tmp_path, viewer, letters):
    affine, values = nifti(tmp_path / "scan.nii.gz", letters, degrees=20)
    (image,) = opened(viewer, tmp_path / "scan.nii.gz")
    np.testing.assert_allclose(image._transforms["data2physical"].linear_matrix, np.diag(image.scale))
    assert image.metadata[FILE_KEY].resampled
    # Everything within 4 mm of a voxel's place in the patient.
    centre = (affine @ [4, 4, 3, 1])[:3]
    towards_layer = (np.array([-1, -1, 1]) * centre)[::-1]
    where = np.stack(np.meshgrid(*map(np.arange, image.data.shape), indexing="ij"), -1)
    world = where * np.asarray(image.scale) + np.asarray(image.translate)
    mask = OurLayers(viewer).add_mask(
        image, (np.linalg.norm(world - towards_layer, axis=-1) < 4).astype(np.uint8), classes=2
    )
    saved(mask, tmp_path / "mask.nii.gz")
    back = nib.load(tmp_path / "mask.nii.gz")
    np.testing.assert_allclose(back.affine, affine, atol=1e-4)
    assert back.shape == values.shape
    found = np.argwhere(np.asarray(back.dataobj)) @ affine[:3, :3].T + affine[:3, 3]
    assert len(found) > 10
    assert np.linalg.norm(found - centre, axis=1).max() < 4 + 2.5
    np.testing.assert_allclose(found.mean(axis=0), centre, atol=0.8)


def test_a_mask_that_was_moved_is_saved_where_it_lies(tmp_path, viewer):
    nifti(tmp_path / "scan.nii.gz", "LPI")
    (image,) = opened(viewer, tmp_path / "scan.nii.gz")
    mask = OurLayers(viewer).add_mask(image, np.ones(image.data.shape, np.uint8), classes=2)
    before = np.asarray(mask.translate)
    mask.translate = np.add(before, (10, 0, 0))
    saved(mask, tmp_path / "mask.nii.gz")
    geometry = read(tmp_path / "mask.nii.gz").geometry
    assert geometry.orientation == "SPL"
    np.testing.assert_allclose(geometry.origin, np.add(before, (10, 0, 0)), atol=1e-4)


@pytest.mark.parametrize("ending", [".nii", ".nrrd", ".seg.nrrd", ".mha", ".tif", ".ome.tif", ".ome.zarr"])
def test_every_format_keeps_the_place_of_the_scan(tmp_path, viewer, ending):
    if ending.endswith(".zarr"):
        pytest.importorskip("zarr")
    nifti(tmp_path / "scan.nii.gz", "PSR")
    scan = read(tmp_path / "scan.nii.gz")
    (image,) = opened(viewer, tmp_path / "scan.nii.gz")
    inside = np.asarray(image.data) == scan.array[0, 1, 2, 3]
    mask = OurLayers(viewer).add_mask(image, inside.astype(np.uint8), classes=2)
    saved(mask, tmp_path / f"mask{ending}")
    back = read_segmentation(tmp_path / f"mask{ending}")[0]
    assert back.geometry.close_to(scan.geometry, shape=scan.spatial_shape)
    np.testing.assert_array_equal(np.argwhere(np.asarray(back.array)), [[1, 2, 3]])


def test_images_go_back_as_they_came(tmp_path, viewer):
    affine, values = nifti(tmp_path / "scan.nii.gz", "PIR")
    (image,) = opened(viewer, tmp_path / "scan.nii.gz")
    for ending in (".nii.gz", ".nrrd", ".mha", ".ome.tif"):
        saved(image, tmp_path / f"copy{ending}")
        copy = read(tmp_path / f"copy{ending}")
        np.testing.assert_array_equal(copy.array[0], values.T)
        np.testing.assert_allclose(copy.geometry.to_nifti(), affine, atol=1e-4)


def test_colour_goes_out_as_colour(tmp_path, viewer, rng):
    colours = rng.integers(0, 255, (6, 7, 3)).astype(np.uint8)
    image = viewer.add_image(colours, rgb=True, scale=(0.5, 0.25), units=("um", "um"))
    saved(image, tmp_path / "colour.ome.tif")
    back = read(tmp_path / "colour.ome.tif")
    assert back.is_rgb
    assert back.geometry.spacing == (0.5, 0.25)
    np.testing.assert_array_equal(np.moveaxis(back.array, 0, -1), image.data)


def test_names_and_colours_of_labels_go_round(tmp_path, viewer):
    geometry = Geometry.from_spacing((3, 1, 1), origin=(1, 2, 3), units="mm", frame="patient")
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[1, 2, 3], labels[2] = 1, 7
    given = LabelMap(labels, geometry, {1: "liver", 7: "spleen"}, {1: (1.0, 0.0, 0.0), 7: (0.0, 0.0, 1.0)})
    write(given, tmp_path / "organs.seg.nrrd")
    (layer,) = opened(viewer, tmp_path / "organs.seg.nrrd")
    assert isinstance(layer, Labels)
    assert layer.name == "organs"
    assert list(layer.features["name"]) == ["background", "liver", "spleen"]
    np.testing.assert_allclose(layer.colormap.map(7), (0, 0, 1, 1))
    saved(layer, tmp_path / "again.seg.nrrd")
    again = read_segmentation(tmp_path / "again.seg.nrrd")[0]
    assert dict(again.names) == {1: "liver", 7: "spleen"}
    np.testing.assert_allclose(again.colours[7], (0, 0, 1), atol=0.01)
    np.testing.assert_array_equal(again.array, labels)


@pytest.mark.parametrize(
    ("name", "values", "kind"),
    [
        ("scan_seg.nii.gz", [0, 1, 2], Labels),
        ("T1-label.nrrd", [0, 1, 5], Labels),
        ("mask.mha", [0, 1], Labels),
        ("scan_seg.nii.gz", [0, 0.5, 1], Image),
        ("brain_masked.nii.gz", [0, 1, 2], Image),
        ("label.nii.gz", range(500), Image),
        ("scan.nii.gz", [0, 1], Image),
        ("labels/scan.nii.gz", [0, 1], Labels),
    ],
)
def test_masks_are_known_by_name_and_values(tmp_path, viewer, name, values, kind):
    array = np.resize(np.asarray(values, np.float32), (8, 9, 10))
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    write(array, path, geometry=Geometry.from_spacing((1, 1, 1), units="mm", frame="patient"))
    (layer,) = opened(viewer, path)
    assert type(layer) is kind


def test_files_opened_together_are_layers_of_their_own(tmp_path, viewer):
    sequences = ["FLAIR", "T1", "T1POST", "T2"]
    for name in sequences:
        nifti(tmp_path / f"{name}.nii.gz")
    found = opened(viewer, *(tmp_path / f"{name}.nii.gz" for name in sequences))
    assert [layer.name for layer in found] == sequences
    twelve = [tmp_path / f"scan{i:02}.nii.gz" for i in range(12)]
    for path in twelve:
        nifti(path)
    assert [layer.name for layer in opened(viewer, *twelve)] == [f"scan{i:02}" for i in range(12)]
    assert {layer.units for layer in viewer.layers} == {viewer.layers[0].units}


def test_channels_are_layers_and_colour_is_one(tmp_path, viewer, rng):
    geometry = Geometry.from_spacing((0.5, 0.5), units="um")
    pair = Volume(rng.integers(0, 4000, (2, 6, 7)).astype(np.uint16), geometry, ("DAPI", "actin"))
    write(pair, tmp_path / "cells.ome.tif")
    assert [layer.name for layer in opened(viewer, tmp_path / "cells.ome.tif")] == ["cells, DAPI", "cells, actin"]
    colour = Volume(rng.integers(0, 255, (3, 6, 7)).astype(np.uint8), geometry, ("red", "green", "blue"))
    write(colour, tmp_path / "tissue.ome.tif")
    (layer,) = opened(viewer, tmp_path / "tissue.ome.tif")
    assert layer.rgb
    assert layer.data.shape == (6, 7, 3)
    assert tuple(layer.scale) == (0.5, 0.5)


def test_large_images_stay_on_disk_with_their_levels(tmp_path, viewer):
    zarr = pytest.importorskip("zarr")
    root = zarr.open_group(tmp_path / "image.zarr", mode="w", zarr_format=2)
    scales = []
    for level, size in enumerate((64, 32)):
        array = root.create_array(str(level), shape=(size, size), chunks=(16, 16), dtype="uint16")
        array[:] = 7
        step = 0.5 * 2**level
        scales.append({"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": [step, step]}]})
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    root.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": scales}]
    (layer,) = opened(viewer, tmp_path / "image.zarr")
    assert layer.multiscale
    assert [level.shape for level in layer.data] == [(64, 64), (32, 32)]
    assert all(hasattr(level, "dask") for level in layer.data)


def test_masks_of_an_ome_zarr_come_with_the_image(tmp_path, viewer):
    zarr = pytest.importorskip("zarr")
    root = zarr.open_group(tmp_path / "image.zarr", mode="w", zarr_format=2)
    root.create_array("0", shape=(8, 9), chunks=(8, 9), dtype="uint16")[:] = 7
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    scale = [{"type": "scale", "scale": [0.5, 0.5]}]
    root.attrs["multiscales"] = [
        {"version": "0.4", "axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
    ]
    labels = np.zeros((8, 9), np.uint8)
    labels[2:4] = 2
    geometry = Geometry.from_spacing((0.5, 0.5), units="um")
    write(LabelMap(labels, geometry, {2: "cell"}), tmp_path / "image.zarr")
    image, mask = opened(viewer, tmp_path / "image.zarr")
    assert isinstance(image, Image)
    assert isinstance(mask, Labels)
    np.testing.assert_array_equal(mask.data, labels)
    assert "cell" in list(mask.features["name"])
    assert mask.name.startswith("image, ")


def test_the_first_window_of_the_file_is_shown():
    geometry = Geometry.from_spacing((1, 1, 1), units="mm", frame="patient")
    values = np.random.default_rng(0).normal(40, 300, (1, 8, 8, 8)).astype(np.float32)
    volume = Volume(values, geometry, acquisition=Acquisition("CT", "HU", ((40, 400), (300, 1500))))
    assert contrast_limits(volume, [values[0]]) == (-160, 240)
    plain = Volume(values, geometry, acquisition=Acquisition("MR"))
    low, high = contrast_limits(plain, [values[0]])
    assert values.min() <= low < high <= values.max()
    values[0, 0, 0, 0] = 1e9  # one hot voxel does not darken the picture
    assert contrast_limits(plain, [values[0]])[1] < 1e4
    assert contrast_limits(Volume(np.full((1, 4, 4, 4), 3.0), geometry), [np.full((4, 4, 4), 3.0)]) is None
    empty = np.full((4, 4, 4), np.nan)
    assert contrast_limits(Volume(empty[None], geometry), [empty]) is None


def test_fractions_are_an_image_between_0_and_1(data_folder, viewer):
    (layer, *_) = opened(viewer, data_folder / "formats" / "dicom_highdicom" / "seg_image_ct_true_fractional.dcm")
    assert isinstance(layer, Image)
    assert tuple(layer.contrast_limits) == (0, 1)


def test_a_dicom_series_and_its_segmentation_lie_on_each_other(data_folder, tmp_path, viewer):
    (image,) = opened(viewer, data_folder / "formats" / "dicom_seg_dcmqi" / "ct-3slice")
    assert image.metadata[FILE_KEY].acquisition.files
    inside = np.zeros(image.data.shape, np.uint8)
    inside[1, 100:120, 200:230] = 1
    mask = OurLayers(viewer).add_mask(image, inside, classes=2)
    saved(mask, tmp_path / "mask.dcm")
    (back,) = opened(viewer, tmp_path / "mask.dcm")
    assert isinstance(back, Labels)
    found = np.argwhere(np.asarray(back.data))
    for index, corner in ((found[0], (1, 100, 200)), (found[-1], (1, 119, 229))):
        np.testing.assert_allclose(back.data_to_world(index), image.data_to_world(corner), atol=1e-3)


def test_a_dicom_segmentation_needs_its_series(tmp_path, viewer):
    layer = viewer.add_labels(np.ones((4, 5, 6), np.uint8))
    with pytest.raises(BadImage, match=r"refers to the DICOM files of its image.*nii\.gz"):
        saved(layer, tmp_path / "mask.dcm")


# ------------------------------------------------------------------------------------------------------- what is ours


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("scan.nii", True),
        ("Scan.NII.GZ", True),
        ("mask.seg.nrrd", True),
        ("slide.svs", True),
        ("cells.ome.tif", True),
        ("photo.png", False),
        ("photo.tif", False),
        ("notes.txt", False),
        ("archive.gz", False),
    ],
)
def test_plain_pictures_are_left_to_napari(tmp_path, manager, name, ours):
    path = tmp_path / name
    path.touch()
    assert (get_reader(str(path)) is not None) == ours
    assert bool(list(manager.iter_compatible_readers([str(path)]))) == ours
    assert get_reader([str(path), str(tmp_path / "photo.png")]) is None


def test_folders_are_ours_when_they_hold_scans(tmp_path):
    assert get_reader(str(tmp_path)) is None
    (tmp_path / "photo.png").write_bytes(b"\x89PNG")
    assert get_reader(str(tmp_path)) is None
    series = tmp_path / "patient" / "series"
    series.mkdir(parents=True)
    (series / "IM0001").write_bytes(bytes(128) + b"DICM" + bytes(50))
    assert get_reader(str(tmp_path / "patient")) is not None
    assert get_reader(str(series)) is not None
    assert get_reader(str(tmp_path / "missing")) is None


def test_a_folder_of_many_pictures_is_passed_over_quickly(tmp_path):
    for i in range(400):
        (tmp_path / f"photo{i}.png").touch()
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        assert get_reader(str(tmp_path)) is None
        seconds.append(time.perf_counter() - begin)
    assert min(seconds) < 0.1


def test_answering_loads_no_library(tmp_path):
    code = f"""
import sys
from napari_medt._napari_io import get_reader
assert get_reader({str(tmp_path / "scan.nii.gz")!r}) is not None
print(*sys.modules)
"""
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"torch", "monai", "nibabel", "pydicom", "SimpleITK", "dask", "zarr", "tifffile", "scipy", "qtpy", "napari"}
    assert not heavy & set(loaded)


def test_the_dock_loads_no_format_library():
    code = "import sys, napari_medt.widgets.dock; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "napari_medt.widgets.dock" in loaded
    assert not {"torch", "monai", "nibabel", "pydicom", "highdicom", "SimpleITK", "openslide"} & set(loaded)


def test_writers_are_offered_for_each_format(manager):
    for kind, endings in {
        "labels": (".nii.gz", ".nii", ".nrrd", ".seg.nrrd", ".mha", ".tif", ".ome.tif", ".zarr", ".png", ".dcm"),
        "image": (".nii.gz", ".nrrd", ".mha", ".ome.tif", ".ome.zarr"),
    }.items():
        for ending in endings:
            writer, _ = manager.get_writer(f"there{ending}", [kind])
            assert writer is not None, f"{kind} {ending}"


def test_napari_opens_and_saves_by_its_own_doors(tmp_path, viewer, manager, monkeypatch):
    """`viewer.open` and `layer.save`."""
    monkeypatch.setattr(PluginManager, "instance", lambda: manager)
    nifti(tmp_path / "scan.nii.gz", "LPI")
    (image,) = viewer.open(tmp_path / "scan.nii.gz", plugin="napari-medt")
    assert image.name == "scan"
    mask = viewer.add_labels(np.ones(image.data.shape, np.uint8), metadata=dict(image.metadata), scale=image.scale)
    for name in ("scale", "translate", "affine", "units"):
        setattr(mask, name, getattr(image, name))
    assert mask.save(str(tmp_path / "out.nii.gz"), plugin="napari-medt") == [str(tmp_path / "out.nii.gz")]
    np.testing.assert_allclose(nib.load(tmp_path / "out.nii.gz").affine, nib.load(tmp_path / "scan.nii.gz").affine)


# -------------------------------------------------------------------------------------------------- questions, remarks


@pytest.fixture
def film(tmp_path):
    path = tmp_path / "film.nii.gz"
    nib.save(nib.Nifti1Image(np.arange(4 * 5 * 6 * 3, dtype=np.int16).reshape(4, 5, 6, 3), np.eye(4)), path)
    with pytest.raises(AmbiguousImage):
        read(path)
    return path


def test_without_a_window_an_open_question_is_an_error(film, viewer, monkeypatch):
    monkeypatch.setattr(asking, "has_window", lambda: False)
    with pytest.raises(AmbiguousImage, match="choose"):
        opened(viewer, film)


def test_with_a_window_the_user_is_asked(film, viewer, monkeypatch):
    asked = []

    def choose(question):
        asked.append(question)
        return question.choices[1].key

    monkeypatch.setattr(asking, "has_window", lambda: True)
    monkeypatch.setattr(asking, "tell", lambda *_, **__: None)
    monkeypatch.setattr(asking, "choose", choose)
    (layer,) = opened(viewer, film)
    assert len(asked) == 1
    np.testing.assert_array_equal(layer.data, _shown(read(film, choose=asked[0].choices[1].key)))


def _shown(volume):
    return volume.geometry.axes_towards().apply(volume.array[0])


def test_a_declined_question_opens_nothing(film, viewer, monkeypatch):
    monkeypatch.setattr(asking, "has_window", lambda: True)
    monkeypatch.setattr(asking, "choose", lambda _: None)
    assert get_reader(str(film))(str(film)) == [(None,)]


@pytest.mark.skipif(not display_answers(), reason="needs a display; `make test` brings a virtual one")
def test_the_dialog_lists_the_choices(request):
    request.getfixturevalue("qapp")
    question = AmbiguousImage("The folder holds 2 images", [Choice("a", "Thorax, CT"), Choice("b", "Head, MR")])
    dialog = asking.dialog_of(question)
    assert [dialog.choices.item(i).text() for i in range(2)] == ["Thorax, CT", "Head, MR"]
    assert dialog.choices.currentRow() == 0
    dialog.close()


def test_what_is_odd_is_told_once(tmp_path, viewer, monkeypatch):
    said = []
    monkeypatch.setattr(asking, "tell", lambda sentence, **options: said.append((sentence, options)))
    nifti(tmp_path / "plain.nii.gz")
    opened(viewer, tmp_path / "plain.nii.gz")
    assert said == []
    nifti(tmp_path / "turned.nii.gz", degrees=15)
    opened(viewer, tmp_path / "turned.nii.gz")
    ((sentence, _),) = said
    assert sentence.startswith("turned: ")
    assert "at an angle" in sentence
    assert sentence.endswith(".")
    (tmp_path / "broken.nii.gz").write_bytes(b"\x1f\x8bnothing")
    with pytest.raises(BadImage):
        opened(viewer, tmp_path / "broken.nii.gz")
    assert said[-1][1] == {"failed": True}


def test_names_of_layers_leave_endings_out():
    names = {"scan.nii.gz": "scan", "a.b.seg.nrrd": "a.b", "cells.ome.zarr": "cells", "series": "series"}
    assert {name: name_of(Path(name)) for name in names} == names


def test_a_tilted_gantry_is_shown_along_the_way_it_goes():
    """A shear makes the slanted axis longer than its way along the world."""
    affine = np.array([[2.0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    origin = Origin.of(Geometry(affine, "mm", "patient"), (10, 20, 20))
    assert origin.resampled
    np.testing.assert_allclose(origin.shown.spacing, (2, 1, 1))
    assert origin.shown_shape[0] in (10, 11)
    assert origin.shown_shape[1] >= 29
    assert origin.axes == AxisMap((0, 1, 2), (False, False, False))
