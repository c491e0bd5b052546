"""Four-channel MRI from the files of a challenge to the masks of three structures, and label schemes that do not fit."""

from __future__ import annotations

import csv
import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from napari_medt.cli import app
from napari_medt.cohort.work import Work
from napari_medt.core import BadTrainingData, Cancel, Geometry, Volume, silent
from napari_medt.engine import predict
from napari_medt.engine.prepare import fit
from napari_medt.io import join_channels, read, read_segmentation
from napari_medt.measure import count
from napari_medt.nets import create_net
from napari_medt.training import fine_tune
from napari_medt.training.brats import REGIONS, SCHEMES
from napari_medt.training.bundle import train
from napari_medt.training.data import find_data, load, load_samples
from napari_medt.training.datasets import find_cases
from napari_medt.training.recipe import parse_recipe, read_recipe
from napari_medt.zoo import Model, load_model

EXAMPLES = Path(__file__).parents[2] / "recipes" / "examples"
CLEAR = 0.5  # Dice; marking the whole head gives 0.05 to 0.2
RECIPE = EXAMPLES / "unet-brats.toml"
SMALLER = {  # a network and windows that learn in half a minute
    "[16, 32, 64, 128]": "[8, 16]",
    "window = [96, 96, 96]": "window = [20, 24, 24]",
    "spacing = [1.0, 1.0, 1.0]": "spacing = [2.0, 2.0, 2.0]",
    "window = 96": "window = [20, 24, 24]",
    "steps = 20000": "steps = 90",
    "norm_batches = 30": "norm_batches = 3",
    "warmup = 60": "warmup = 10",
    "learning_rate = 2e-3": "learning_rate = 1e-2",
    "average = 0.99": "average = 0.9",
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The synthetic set as the Decathlon gives it, and as the challenge of 2023 does."""
    spec = importlib.util.spec_from_file_location("make_brats_like", EXAMPLES / "make_brats_like.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    folder = tmp_path_factory.mktemp("brats")
    script.main(folder / "msd", cases=10)
    script.main(folder / "brats2023", cases=2, scheme="brats2023")
    script.main(folder / "brats2018", cases=2, scheme="brats2018")
    return folder


@pytest.fixture(scope="module")
def trained(drawn):
    text = RECIPE.read_text()
    for old, new in SMALLER.items():
        assert old in text
        text = text.replace(old, new)
    (drawn / "small.toml").write_text(text)
    return train(drawn / "small.toml", data=drawn / "msd", out=drawn / "run", device="cpu")


def scheme_of(name, recipe=None):
    recipe = recipe or read_recipe(RECIPE)
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"scheme": name})})


class TestSchemes:
    def test_the_recipe_makes_a_card_of_three_overlapping_structures(self):
        card = read_recipe(RECIPE).to_card()
        assert card.overlapping
        assert card.classes[1:] == REGIONS
        net = create_net(card.architecture, **card.net_options)
        assert (net.in_channels, net.num_classes) == (card.in_channels, card.outputs) == (4, 3)

    @pytest.mark.parametrize(("name", "enhancing"), [("msd", 3), ("brats2018", 4), ("brats2023", 3)])
    def test_structures_lie_in_one_another_and_the_right_label_enhances(self, drawn, name, enhancing):
        recipe = scheme_of(name)
        cases = find_data(recipe, drawn / name, beside=EXAMPLES).cases
        volume, (whole, core, rim) = load(cases[0], recipe)
        assert (rim <= core).all()
        assert (core <= whole).all()
        assert 0 < rim.sum() < core.sum() < whole.sum()
        mask = read_segmentation(cases[0].labels)[0].array
        assert np.array_equal(rim > 0, mask == enhancing)
        contrast = volume.array[2]  # T1 with contrast
        assert contrast[rim > 0].mean() > 1.5 * contrast[(whole > 0) & (rim == 0)].mean()

    @pytest.mark.parametrize("wrong", ["brats2018", "brats2023"])
    def test_names_in_the_data_set_tell_a_wrong_scheme(self, drawn, wrong):
        with pytest.raises(BadTrainingData, match=r'calls its labels 1 edema, 3 .*likely of "msd", so set scheme'):
            find_data(scheme_of(wrong), drawn / "msd", beside=EXAMPLES)

    @pytest.mark.parametrize(
        ("data", "wrong", "why"),
        [
            ("brats2018", "msd", "holds the label 4"),
            ("brats2018", "brats2023", "holds the label 4"),
            ("brats2023", "brats2018", "holds the label 3"),
            ("brats2023", "msd", "the label 2 lies around the label 1"),
            ("msd", "brats2018", "holds the label 3"),
            ("msd", "brats2023", "the label 1 lies around the label 2"),
        ],
    )
    def test_labels_tell_a_wrong_scheme_and_the_right_one(self, drawn, tmp_path, data, wrong, why):
        folder = drawn / data
        if data == "msd":  # without the names in dataset.json
            folder = tmp_path
            for part in ("imagesTr", "labelsTr"):
                shutil.copytree(drawn / data / part, tmp_path / part)
            (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": dict(enumerate("abcd"))}))
        choose = ("channels",) if data == "msd" else ()
        found = find_cases(folder)
        cases = tuple(replace(case, split="train", choose=choose) for case in found.cases[:2])
        with pytest.raises(BadTrainingData) as caught:
            load_samples(replace(found, cases=cases), "train", scheme_of(wrong))
        assert why in str(caught.value)
        assert f'likely of "{data}", so set scheme to that' in str(caught.value)

    @pytest.mark.parametrize("change", [{"values": {"tumour core": (1, 4)}}, {"scheme": "brats2019"}])
    def test_a_scheme_stands_alone(self, change):
        content = read_recipe(RECIPE).model_dump()
        content["data"] |= change
        with pytest.raises(BadTrainingData, match="scheme"):
            parse_recipe(content, where="recipe")
        content = read_recipe(RECIPE).model_dump() | {"classes": ("background", "WT", "TC", "ET")}
        with pytest.raises(BadTrainingData, match="for the classes whole tumour, tumour core, enhancing tumour"):
            parse_recipe(content, where="recipe")

    def test_sources_of_the_schemes_differ_only_where_they_should(self):
        assert SCHEMES["msd"].values == {REGIONS[0]: (1, 2, 3), REGIONS[1]: (2, 3), REGIONS[2]: (3,)}
        assert SCHEMES["brats2018"].values == {REGIONS[0]: (2, 1, 4), REGIONS[1]: (1, 4), REGIONS[2]: (4,)}
        assert SCHEMES["brats2023"].values == {REGIONS[0]: (2, 1, 3), REGIONS[1]: (1, 3), REGIONS[2]: (3,)}


class TestFolders:
    def test_patients_of_the_challenge(self, drawn):
        found = find_cases(drawn / "brats2023")
        assert found.layout == "brats"
        assert [case.patient for case in found.cases] == ["BraTS-GLI-00001", "BraTS-GLI-00002"]
        assert [path.name.split("-")[-1] for path in found.cases[0].images] == [
            f"{one}.nii.gz" for one in ("t2f", "t1n", "t1c", "t2w")
        ]

    def test_a_missing_sequence_is_named(self, drawn, tmp_path):
        shutil.copytree(drawn / "brats2023", tmp_path / "set")
        next((tmp_path / "set").glob("*00001*/*-t1c.nii.gz")).unlink()
        (problem,) = find_cases(tmp_path / "set").problems
        assert "no image of the sequence t1c" in problem.what

    def test_patients_who_share_a_folder_keep_their_own_images(self, drawn, tmp_path):
        for path in (drawn / "brats2023").glob("*/*.nii.gz"):
            shutil.copy(path, tmp_path)
            (tmp_path / f"._{path.name}").write_bytes(b"of the system")
        found = find_cases(tmp_path)
        assert not found.problems
        assert [case.name for case in found.cases] == ["BraTS-GLI-00001-000", "BraTS-GLI-00002-000"]
        assert [case.patient for case in found.cases] == ["BraTS-GLI-00001", "BraTS-GLI-00002"]
        for case in found.cases:
            assert all(path.name.startswith(case.name) for path in (*case.images, case.labels))


class TestPreparation:
    def test_orientation_comes_before_spacing_and_each_channel_is_normalised_on_what_is_not_zero(self, drawn):
        recipe = read_recipe(RECIPE)
        volume, _ = load(find_data(recipe, drawn / "msd", beside=EXAMPLES).cases[0], recipe)
        assert volume.geometry.orientation == "SAL"
        card = recipe.to_card().model_copy(update={"spacing": (3.0, 1.5, 1.5), "crop": "none"})
        prepared = fit(volume, card)
        assert prepared.geometry.orientation == "SAR"
        assert prepared.spatial_shape == volume.spatial_shape
        image = prepared.whole()
        head = volume.array[:, :, :, ::-1] != 0
        assert (image[~head] == 0).all()
        for channel, inside in zip(image, head, strict=True):
            assert channel[inside].mean() == pytest.approx(0, abs=1e-3)
            assert channel[inside].std() == pytest.approx(1, abs=1e-3)
        turned = fit(volume, card.model_copy(update={"spacing": (2.0, 1.0, 3.0), "orientation": "SRA"}))
        assert turned.spatial_shape == (24, 66, 20)  # 16 x 3, 44 x 1.5 and 40 x 1.5 mm

    @pytest.mark.parametrize("names", [("t2w", "t1c", "t1n", "t2f"), ("T2", "T1POST", "T1", "FLAIR")])
    def test_sequences_are_taken_by_any_of_their_names(self, names):
        array = np.arange(4, dtype=np.float32).reshape(4, 1, 1, 1) * np.ones((1, 8, 8, 8), np.float32)
        volume = Volume(array, Geometry.from_spacing((1, 1, 1), units="mm"), names)
        prepared = fit(volume, read_recipe(RECIPE).to_card().model_copy(update={"crop": "none"}))
        assert prepared.channels.order == (3, 2, 1, 0)


class TestEndToEnd:
    def test_it_learns_all_three(self, trained):
        with (trained.parent / "held_out.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        for name in REGIONS:
            assert np.mean([float(row["dice"]) for row in rows if row["class"] == name]) > CLEAR

    @pytest.mark.parametrize("ending", [".nii.gz", ".seg.nrrd"])
    def test_the_shell_writes_three_segments_on_the_grid_of_the_image(self, trained, drawn, tmp_path, ending):
        table = (trained.parent / "held_out.csv").read_text().splitlines()
        name = table[1].split(",")[0]
        image, mask = drawn / "msd" / "imagesTr" / f"{name}.nii.gz", tmp_path / f"mask{ending}"
        said = CliRunner().invoke(
            app, ["predict", str(image), "--model", str(trained), "-o", str(mask), "--choose", "channels"]
        )
        assert said.exit_code == 0, said.output
        found = read_segmentation(mask)
        assert [list(one.names.values()) for one in found] == [[name] for name in REGIONS]
        truth = read_segmentation(drawn / "msd" / "labelsTr" / f"{name}.nii.gz")[0]
        wanted = (truth.array > 0, truth.array > 1, truth.array == 3)
        for one, true in zip(found, wanted, strict=True):
            assert one.geometry.close_to(truth.geometry, shape=truth.array.shape)
            assert count(one.array > 0, true).dice > CLEAR

    def test_four_files_of_one_patient_are_one_image(self, trained, drawn, tmp_path):
        case = find_cases(drawn / "brats2023").cases[0]
        how = {"model": str(trained), "device": "cpu", "compute": "local", "choose": (), "options": {}, "ours": ()}
        mask = tmp_path / "mask.nii.gz"
        _, notes = Work().segment(case.images[::-1], mask, **how, progress=silent, cancel=Cancel())
        assert not any("in their order" in note for note in notes)
        truth = read_segmentation(case.labels)[0].array
        whole, _, rim = read_segmentation(mask)
        assert count(whole.array > 0, truth > 0).dice > CLEAR
        assert count(rim.array > 0, truth == 3).dice > CLEAR


def test_a_real_patient_with_four_sequences(data_folder, trained):
    """Of multiple sclerosis, with the skull on: nothing is to be learnt from the answer, but the way is the same."""
    folder = data_folder / "brain_ms_4ch"
    if not folder.is_dir():
        pytest.skip("needs brain_ms_4ch")
    paths = [folder / f"patient07_{name}.nii.gz" for name in ("T2", "T1POST", "FLAIR", "T1")]
    joined = join_channels([read(path) for path in paths])
    model = load_model(str(trained), device="cpu")
    middle = tuple(slice(size // 3, size // 3 + max(8, size // 6)) for size in joined.spatial_shape)
    found = predict(model, joined, roi=middle)
    assert not any("in their order" in note for note in found.notes)
    assert found.structures.shape == (3, *joined.spatial_shape)
    assert found.geometry == joined.geometry
    lesion = read_segmentation(folder / "patient07_lesion.nii.gz", like=joined)[0].array > 0
    z = int(lesion.sum(axis=(1, 2)).argmax())
    place = Geometry.from_spacing(joined.geometry.spacing[1:], units="mm")
    one = Volume(joined.array[:, z], place, joined.channel_names)
    card = model.card.model_copy(
        update={
            "name": "lesions",
            "classes": ("background", "lesion"),
            "spatial_dims": 2,
            "window": (64, 64),
            "spacing": None,
            "orientation": "",
            "crop": "none",
            "net_options": {"spatial_dims": 2, "in_channels": 4, "num_classes": 1, "channels": (8, 16)},
        }
    )
    torch.manual_seed(0)
    untaught = Model(card, create_net("unet", **card.net_options).eval(), torch.device("cpu"))
    losses = []
    lesions = [(one, lesion[z][None])]
    taught = fine_tune(
        untaught, lesions, steps=40, learning_rate=1e-2, on_step=lambda event: losses.append(event["loss"])
    )
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    assert predict(taught, one).structures.shape == (1, *one.spatial_shape)
