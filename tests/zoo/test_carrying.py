"""Models on the move: a single file, the user's own shelf, and what is refused."""

from __future__ import annotations

import json
import zipfile

import pytest
import torch

from napari_medt.core import BadModel, BadWeights, StorageError
from napari_medt.zoo import add_model, check_model, list_models, load_model, models_folder, save_model
from napari_medt.zoo.carrying import pack, parts_of, unpack, write_new
from napari_medt.zoo.requirements import requirements
from tests.nets import golden


@pytest.fixture
def run_folder(card, net, tmp_path):
    """The model folder of a finished training."""
    save_model(tmp_path / "run" / "model", card(name="fresh"), net)
    return tmp_path / "run" / "model"


@pytest.fixture
def single(run_folder, tmp_path):
    write_new(tmp_path / "fresh.medt", pack(parts_of(run_folder)[1]))
    return tmp_path / "fresh.medt"


def test_a_single_file_is_the_folder_byte_for_byte(run_folder, single):
    parts = unpack(single)
    assert {path.name: path.read_bytes() for path in run_folder.iterdir()} == parts
    assert pack(parts) == single.read_bytes()
    x = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        both = [load_model(source, device="cpu") for source in (single, run_folder)]
        assert torch.equal(both[0].net(x), both[1].net(x))
    assert both[0].card == both[1].card


@pytest.mark.parametrize("source", ["run_folder", "single"])
def test_an_added_model_is_found_by_its_name(request, source):
    kept = add_model(request.getfixturevalue(source))
    assert kept.key == "fresh@1"
    assert load_model("fresh", device="cpu").card == kept
    assert check_model("fresh").passed


def test_a_file_of_a_folder_stands_for_it(run_folder):
    assert add_model(run_folder / "card.json").key == "fresh@1"


def test_a_model_is_added_once_and_never_over_another(run_folder, card, net, tmp_path):
    add_model(run_folder)
    with pytest.raises(BadModel, match="This model is there already, as fresh@1; use it by this name: fresh@1"):
        add_model(run_folder)
    with torch.no_grad():
        next(net.parameters()).mul_(2)
    save_model(tmp_path / "other", card(name="fresh"), net)
    assert add_model(tmp_path / "other").key == "fresh@2"
    assert check_model("fresh@2").passed
    assert [kept.key for kept in list_models() if kept.name == "fresh"] == ["fresh@1", "fresh@2"]


def test_a_bundled_name_gets_the_next_version(run_folder):
    values = json.loads((run_folder / "card.json").read_text())
    (run_folder / "card.json").write_text(json.dumps(values | {"name": "medt-nuclei"}))
    assert add_model(run_folder).key == "medt-nuclei@2"
    assert load_model("medt-nuclei", device="cpu").card.architecture == "medt"


def test_a_checkpoint_of_others_is_kept_as_a_model(tmp_path):
    _, state, _ = golden.load(golden.FIXTURES / "recipe_axialunet_128.npz")
    torch.save(state, tmp_path / "Final Model.pth")
    kept = add_model(tmp_path / "Final Model.pth")
    assert (kept.key, kept.architecture, kept.channels) == ("final-model@1", "axial-unet", "bgr")
    x = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        expected = load_model(tmp_path / "Final Model.pth", device="cpu").net(x)
        assert torch.equal(load_model("final-model", device="cpu").net(x), expected)


def test_changed_weights_are_not_kept(run_folder):
    path = run_folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(BadWeights, match="their digest differs; get the model again"):
        add_model(run_folder)
    assert not models_folder().exists()


def test_a_folder_that_is_not_whole_is_refused(run_folder):
    (run_folder / "selftest.npz").unlink()
    with pytest.raises(BadModel, match=r"is not whole: selftest\.npz cannot be read .*; restore the folder"):
        add_model(run_folder)


@pytest.mark.parametrize("cut", [0, 100, 20_000])
def test_a_damaged_file_is_refused(single, cut):
    single.write_bytes(single.read_bytes()[:cut])
    with pytest.raises(BadModel, match=r"fresh\.medt is damaged; get the file again"):
        load_model(single)


def test_a_flipped_byte_is_refused(single):
    content = bytearray(single.read_bytes())
    content[len(content) // 2] ^= 1
    single.write_bytes(content)
    with pytest.raises(BadModel, match="is damaged"):
        add_model(single)


@pytest.mark.parametrize("names", [["card.json"], ["card.json", "weights.safetensors", "../selftest.npz"]])
def test_an_archive_of_something_else_is_refused(tmp_path, names):
    with zipfile.ZipFile(tmp_path / "odd.medt", "w") as archive:
        for name in names:
            archive.writestr(name, b"{}")
    with pytest.raises(BadModel, match=r"odd\.medt is not a model in a single file: it does not hold card\.json"):
        load_model(tmp_path / "odd.medt")


def test_a_file_is_never_written_over(single):
    with pytest.raises(StorageError, match="There is a file .* already; choose another name"):
        write_new(single, b"")
    assert sorted(path.name for path in single.parent.iterdir()) == ["fresh.medt", "run"]


def test_what_a_model_wants_is_said_in_sentences(card):
    plain = requirements(card())
    assert plain[0] == "2D images, or a scan slice by slice, of any size; learnt in windows of 32 x 32."
    assert "Whole numbers, divided by the largest of their type." in plain
    scan = card(
        architecture="unet",
        net_options={},
        channels=("T1", "T2"),
        spatial_dims=3,
        window=(32, 48, 32),
        spacing=(3, 1.5, 1.5),
        orientation="SPL",
        modality="CT, head",
        intensity={"kind": "clip", "low": -200, "high": 500},
        crop="foreground",
        value_range=(-1000, 3000),
        field_of_view_mm=(300, 512, 512),
        training_spacing=(2.5, 1, 1),
    )
    assert requirements(scan) == [
        "3D scans, of any size; learnt in windows of 32 x 48 x 32.",
        "Channels in this order: T1, T2.",
        "CT, head.",
        "Any spacing, brought to 3 x 1.5 x 1.5 mm; the images it learnt from had 2.5 x 1 x 1 mm.",
        "About as large a part of the body as it learnt from: 300 x 512 x 512 mm.",
        "Axes in any order, brought to SPL; the file must say how the patient lies.",
        "Values in their own unit, for CT Hounsfield units: -200 to 500 become 0 to 1.",
        "The images it learnt from had values of -1000 to 3000.",
        "What lies outside the body is left out.",
    ]
