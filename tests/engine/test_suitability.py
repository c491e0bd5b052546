"""What does not suit a model is said in a sentence, exactly; what suits it is passed over in silence."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medt.core import Acquisition, Geometry, Volume
from napari_medt.engine.suitability import Fix, check, mend, suiting
from napari_medt.io import read
from napari_medt.zoo import list_models

SHAPE = (20, 30, 30)


def body():
    values = np.full(SHAPE, -1000.0)
    values[5:15, 5:25, 5:25] = np.random.default_rng(0).normal(40, 60, (10, 20, 20))
    return values


def brain():
    return np.abs(np.random.default_rng(0).normal(300, 150, SHAPE))


def scan(values, *, spacing=(5, 12, 12), units="mm", frame="patient", modality="", unit="", names=()):
    values = values if values.ndim == 4 else values[None]
    geometry = Geometry.from_spacing(spacing, units=units, frame=frame)
    return Volume(values.astype(np.int16), geometry, names, acquisition=Acquisition(modality, unit))


@pytest.fixture
def card(make_card):
    def make(**changes):
        values = {
            "channels": "grey",
            "net_options": {},
            "spatial_dims": 3,
            "window": (16, 16, 16),
            "intensity": {"kind": "clip", "low": -160, "high": 240},
            "modality": "CT, abdomen",
            "orientation": "SPL",
            "spacing": (5, 12, 12),
            "value_range": (-1024, 3000),
            "field_of_view_mm": (100, 360, 360),
        }
        return make_card(**values | changes)

    return make


MRI = {"modality": "MRI of the head", "intensity": {"kind": "zscore"}, "value_range": None}
TWO = {"channels": ("FLAIR", "T1"), **MRI}
OTHER = Fix("other model")


@pytest.mark.parametrize(
    ("image", "changes", "sentence", "fix"),
    [
        (scan(brain()), {}, "This looks like MR, but the model was trained on CT; choose a model for MR.", OTHER),
        (
            scan(brain(), modality="MR"),
            {},
            "This is MR, but the model was trained on CT; choose a model for MR.",
            OTHER,
        ),
        (scan(body()), MRI, "This looks like CT, but the model was trained on MR; choose a model for CT.", OTHER),
        (
            scan(body(), modality="PT"),
            MRI,
            "This is PET, but the model was trained on MR; choose a model for PET.",
            OTHER,
        ),
        (
            scan(body() + 1024, modality="CT"),
            {},
            "The values begin at 24, but those of CT begin at about -1000; subtract 1024, which is often added.",
            Fix("shift values", shift=-1024),
        ),
        (
            scan(body() / 1000, modality="CT", unit="HU"),
            {},
            "The values lie between -1 and 0, but the model was trained on -1024 to 3000; make sure that they have the "
            "same unit, or choose another model.",
            OTHER,
        ),
        (
            scan(body(), spacing=(15, 12, 12)),
            {"field_of_view_mm": None},
            "The samples of this image are 15 x 12 x 12 mm apart, but the model was trained on 5 x 12 x 12 mm, so small "
            "structures may be missed; open a finer series of the same scan if there is one.",
            None,
        ),
        (
            scan(body(), spacing=(0.05, 0.05, 0.05)),
            {"field_of_view_mm": None},
            "The samples of this image are 0.05 x 0.05 x 0.05 mm apart, but the model was trained on 5 x 12 x 12 mm, so it "
            "may show something else; choose another model.",
            OTHER,
        ),
        (
            scan(body(), units="px", frame="image", modality="CT", unit="HU"),
            {"orientation": ""},
            "The file does not say how far apart its samples are, but the model was trained on 5 x 12 x 12 mm; say how far "
            "apart they are.",
            Fix("say spacing"),
        ),
        (
            scan(body()),
            {"field_of_view_mm": (100, 900, 900)},
            "This image shows 100 x 360 x 360 mm, but the model was trained on about 100 x 900 x 900 mm, so it may not know "
            "where it is; open the whole scan.",
            None,
        ),
        (
            scan(body()),
            {"field_of_view_mm": (40, 360, 360)},
            "This image shows 100 x 360 x 360 mm, but the model was trained on about 40 x 360 x 360 mm, so it may find things "
            "where it was never taught; choose the region to segment.",
            Fix("choose region"),
        ),
        (
            scan(body(), frame="image", modality="CT", unit="HU"),
            {},
            "The file does not say how the patient lies, but the model was trained on scans that run SPL; say where the axes "
            "of the image run to.",
            Fix("say orientation"),
        ),
        (
            scan(body(), modality="CT", unit="HU"),
            {"spatial_dims": 2, "window": (16, 16), "spacing": None, "field_of_view_mm": None},
            "This is a 3D scan, but the model sees one slice at a time and nothing of its neighbours; choose a 3D model if "
            "there is one.",
            OTHER,
        ),
        (
            Volume.from_array(np.zeros((3, 40), np.uint8)),
            {"spatial_dims": 2, "window": (16, 16), "spacing": None, "field_of_view_mm": None, **MRI, "modality": ""},
            "This image is only 3 x 40 px, and the model looks at 16 x 16 px at once, so most of what it sees is this image "
            "mirrored; open a larger part of the picture.",
            None,
        ),
        (
            Volume.from_array(np.zeros((9, 9), np.uint8)),
            {},
            "This is a 2D image, but the model segments whole 3D scans; open the whole scan, or choose a 2D model.",
            OTHER,
        ),
        (
            scan(np.stack([brain()] * 2), names=("T2", "FLAIR")),
            MRI,
            "Threshold takes a grey or colour image, but this image has 2 channels (T2, FLAIR); take the first of them, T2, "
            "or another.",
            Fix("take channels", channels=(0,)),
        ),
        (
            scan(brain()),
            TWO,
            "Threshold takes FLAIR, T1, but this image has 1 channel (grey); open the files of the other channels together "
            "with this one.",
            None,
        ),
        (
            scan(np.stack([brain()] * 3), names=("a", "b", "c")),
            TWO,
            "Threshold takes FLAIR, T1, but this image has 3 channels (a, b, c); choose the channels the model was trained "
            "on, or another model.",
            None,
        ),
        (
            scan(np.stack([brain()] * 2), names=("T2", "ADC")),
            TWO,
            "The channels are called T2 and ADC, but the model was trained on FLAIR and T1; make sure that they are the same, "
            "in this order.",
            None,
        ),
        (
            scan(np.stack([brain()] * 2)),
            TWO,
            "The file does not name its channels, but the model was trained on FLAIR and T1; make sure that they are these, "
            "in this order.",
            None,
        ),
    ],
)
def test_each_misfit_is_said_alone_and_exactly(card, image, changes, sentence, fix):
    found = check(image, card(**changes))
    assert [str(misfit) for misfit in found] == [sentence]
    assert found[0].fix == fix


@pytest.mark.parametrize(
    ("image", "changes"),
    [
        (scan(body()), {}),
        (scan(body(), modality="CT", unit="HU"), {}),
        (scan(body() * 0 + 40, modality="CT", unit="HU"), {"value_range": None}),
        (scan(brain()), MRI),
        (scan(brain(), modality="MR"), MRI),
        (
            scan(brain()),
            {"modality": "electron microscopy of rocks", "value_range": None, "intensity": {"kind": "unit"}},
        ),
        (scan(brain() * 7, modality="PT"), MRI | {"modality": "PET"}),
        (scan(np.stack([brain()] * 2), names=("T1", "flair")), TWO),
    ],
)
def test_what_fits_is_passed_over(card, image, changes):
    assert check(image, card(**changes)) == ()


def test_the_most_serious_comes_first(card):
    image = scan(np.stack([brain()] * 2), spacing=(50, 12, 12), frame="image", modality="MR")
    whats = [misfit.what for misfit in check(image, card())]
    assert [what.split()[0] for what in whats] == ["Threshold", "This", "The", "This", "The"]


def test_lengths_follow_the_axes_of_the_model(card):
    """A sagittal scan, thick from left to right, for a model of such scans."""
    geometry = Geometry(np.array([[0, 2.0, 0, 0], [0, 0, 2, 0], [6, 0, 0, 0], [0, 0, 0, 1]]), "mm", "patient")
    image = Volume(brain()[None], geometry)
    assert check(image, card(**MRI, orientation="SPL", spacing=(2, 2, 6), field_of_view_mm=(60, 60, 120))) == ()


def test_channels_that_are_taken_fit(card):
    image = scan(np.stack([brain(), body(), brain()]), names=("T2", "CT", "FLAIR"))
    mended = mend(image, Fix("take channels", channels=(1,)))
    assert mended.channel_names == ("CT",)
    assert check(mended, card()) == ()
    assert image.array.shape[0] == 3


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.int32, np.float32])
def test_values_that_are_shifted_are_hounsfield_units(card, dtype):
    values = (body() + 1024).clip(0).astype(dtype)
    image = Volume(values[None], Geometry.from_spacing((5, 12, 12), units="mm", frame="patient"))
    (misfit,) = check(image, card())
    mended = mend(image, misfit.fix)
    np.testing.assert_allclose(mended.array[0], values.astype(np.float64) - 1024)
    assert mended.acquisition.value_unit == "HU"
    assert check(mended, card()) == ()


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.int64])
def test_large_values_do_not_turn_round_when_they_are_shifted(dtype):
    values = np.array([[0, np.iinfo(dtype).max]], dtype)
    mended = mend(Volume.from_array(values), Fix("shift values", shift=-1024.0))
    assert mended.array.tolist() == [[[-1024, np.iinfo(dtype).max - 1024]]]


def test_what_only_a_person_can_do_is_not_done():
    with pytest.raises(ValueError, match="for a person"):
        mend(scan(brain()), OTHER)


def test_values_on_disk_are_not_all_read(card):
    class Lazy:
        read = 0

        def __init__(self, array):
            self.array, self.shape, self.dtype, self.ndim, self.size = array, array.shape, array.dtype, 4, array.size

        def __getitem__(self, where):
            part = self.array[where]
            Lazy.read = max(Lazy.read, part.size)
            return part

    values = np.tile(body().astype(np.int16), (1, 6, 6, 6))
    lazy = Volume(Lazy(values), Geometry.from_spacing((5, 12, 12), units="mm", frame="patient"))
    assert check(lazy, card(field_of_view_mm=None)) == ()
    assert Lazy.read < values.size / 20


@pytest.mark.parametrize(
    ("folder", "trained"),
    [("headneck_ct_openkbp/images", "CT"), ("hippocampus_mri/images", "MR"), ("brain_ms_4ch", "MR")],
)
def test_real_scans_are_taken_for_what_they_are(data_folder, card, folder, trained):
    """Their files say nothing about how they were made."""
    pytest.importorskip("nibabel")
    paths = [path for path in sorted((data_folder / folder).glob("*.nii.gz")) if "lesion" not in path.name][:6]
    assert paths
    changes = {"intensity": {"kind": "zscore"}, "value_range": None, "spacing": None, "field_of_view_mm": None}
    for path in paths:
        image = read(path)
        assert check(image, card(**changes, modality=trained)) == (), path.name
        if not ("T2" in path.name or "FLAIR" in path.name):
            other = "MR" if trained == "CT" else "CT"
            found = check(image, card(**changes, modality=other))
            assert [misfit.what for misfit in found] == [
                f"This looks like {trained}, but the model was trained on {other}"
            ], path.name


def test_the_bundled_model_suits_the_images_it_was_trained_on(data_folder):
    (nuclei,) = (model for model in list_models() if model.name == "medt-nuclei")
    for path in sorted((data_folder / "nuclei_dsb2018" / "images").iterdir())[:5]:
        assert check(read(path), nuclei) == ()


def photograph(*, disc=True):
    """A disc in the colours of the fundus in a dark frame, or pink tissue everywhere."""
    y, x = np.mgrid[-1:1:96j, -1:1:100j]
    inside = (y**2 + x**2 < 0.9) | (not disc)
    colours = np.array([180, 90, 40] if disc else [220, 150, 190])[:, None, None] * inside
    noise = np.random.default_rng(0).normal(0, 4, colours.shape)
    return Volume(np.clip(colours + noise, 0, 255).astype(np.uint8), Geometry.from_spacing((1, 1), units="px"))


FLAT_CARD = {
    "channels": "rgb",
    "spatial_dims": 2,
    "window": (64, 64),
    "intensity": {"kind": "percentile"},
    "orientation": "",
    "spacing": None,
    "value_range": None,
    "field_of_view_mm": None,
}


def test_photographs_of_the_fundus_and_tissue_are_told_apart(card):
    fundus = card(**FLAT_CARD, modality="fundus photographs, colour")
    cells = card(**FLAT_CARD, modality="microscopy, 2D")
    assert not check(photograph(), fundus)
    assert not check(photograph(disc=False), cells)
    assert [misfit.fix for misfit in check(photograph(), cells)] == [OTHER]
    assert [misfit.fix for misfit in check(photograph(disc=False), fundus)] == [OTHER]


def test_the_models_that_suit_come_by_their_held_out_scores(card):
    def scored(name, dice, **changes):
        score = {"dataset": "held out", "group": "all", "images": 3, "dice": dice, "iou": 0.5, "f1": 0.5}
        return card(name=name, scores=(score,), **changes)

    abdomen, better = scored("abdomen", 0.7), scored("better", 0.8)
    cards = [abdomen, scored("brain", 0.9, **MRI), card(name="unscored"), better, scored("cells", 0.9, **FLAT_CARD)]
    found = suiting(scan(body()), cards)
    assert [card.name for card in found] == ["better", "abdomen", "unscored"]
    assert not suiting(scan(np.stack([brain()] * 3)), [abdomen, better])


@pytest.mark.parametrize(
    ("folder", "pattern", "name"),
    [
        ("nuclei_dsb2018", "images/*.png", "nuclei"),
        ("retina_chasedb1", "images/*.jpg", "vessels"),
        ("hippocampus_mri", "images/*.nii.gz", "hippocampus"),
        ("headneck_ct_openkbp", "images/*.nii.gz", "headneck"),
    ],
)
def test_every_kind_of_image_finds_the_models_made_for_it(data_folder, folder, pattern, name):
    cards = list_models()
    made = {card.name for card in cards if card.name.endswith(name)}
    for path in sorted((data_folder / folder).glob(pattern))[:60:15]:
        assert {card.name for card in suiting(read(path), cards)} == made, path
