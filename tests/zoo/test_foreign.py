"""Checkpoints of the released implementation load directly, or say why they cannot."""

from __future__ import annotations

import pytest
import torch

from napari_medt.core import BadWeights
from napari_medt.zoo import load_model, models_folder, save_version, versions
from napari_medt.zoo.weights import digest
from tests.nets import golden

NETS = {"axialunet": "axial-unet", "gatedaxialunet": "gated-axial-unet", "logo": "logo", "MedT": "medt"}


@pytest.mark.parametrize("theirs", NETS)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_checkpoint_is_recognised_and_gives_the_reference_logits(tmp_path, theirs, prefix):
    _, state, arrays = golden.load(golden.FIXTURES / f"recipe_{theirs}_128.npz")
    path = tmp_path / "final_model.pth"
    torch.save({prefix + name: value for name, value in state.items()}, path)
    model = load_model(path, device="cpu")
    assert model.card.architecture == NETS[theirs]
    assert model.card.channels == "bgr"
    assert "blue, green, red" in model.card.notes[0]
    assert model.card.window == (128, 128)
    with torch.inference_mode():
        found = model.net(torch.from_numpy(golden.recipe_input((1, 3, 128, 128), 7))).numpy()
    assert abs(found - arrays["out_eval"]).max() < 1e-4 * arrays["out_eval"].std()


def saved(tmp_path, change):
    _, state, _ = golden.load(golden.FIXTURES / "recipe_MedT_128.npz")
    path = tmp_path / "model.pth"
    torch.save(change(dict(state)), path)
    return path


def without(*keys):
    return lambda state: {name: value for name, value in state.items() if name not in keys}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            without("adjust.weight"),
            "of no known form; the nearest is the Medical Transformer family, but the key 'adjust.weight'",
        ),
        (without("layer1.0.conv_down.weight"), "'global_encoder.layers.0.0.reduce.weight' is missing"),
        (lambda state: state | {"head2.weight": torch.zeros(1)}, "its key 'head2.weight' does not belong to it"),
        (without("layer1.0.hight_block.f_qr"), "mixes the branches of LoGo and MedT"),
        (lambda state: {"a": torch.zeros(1)}, "the file begins with 'a'"),
        (lambda state: list(state), "holds a list, not a state dict"),
        (lambda state: {"model": {1: 2}}, "the key 'conv1.weight' is missing"),
        (
            lambda state: state | {"conv1.weight": torch.zeros(3)},
            "the key 'conv1.weight' or another is of an unknown shape",
        ),
        (lambda state: state | {"adjust.bias": None}, "'head.bias' is missing"),
        (
            lambda state: state | {"layer2.0.width_block.f_kr": torch.zeros(2)},
            "its gate 'layer2.0.width_block.f_kr' holds 2 values, not one",
        ),
        (without("layer2.0.width_block.f_kr"), "'global_encoder.layers.1.0.width.gates' is missing"),
        (
            lambda state: state | {"adjust.bias": torch.full((2,), torch.nan)},
            "model.pth hold NaN or infinity, first in 'head.bias'",
        ),
        (
            lambda state: state | {"adjust.weight": torch.zeros(1, 16, 1, 1), "adjust.bias": torch.zeros(1)},
            "model.pth has a single output, so there is no background",
        ),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, change, sentence):
    with pytest.raises(BadWeights, match=sentence):
        load_model(saved(tmp_path, change))


def test_contradicting_options_are_refused(tmp_path):
    path = saved(tmp_path, without())
    with pytest.raises(BadWeights, match="holds medt, not logo"):
        load_model(path, arch="logo")
    with pytest.raises(BadWeights, match="was made with img_size=128, not 256"):
        load_model(path, img_size=256)


def test_dictionary_around_the_state_dict_is_opened(tmp_path):
    assert load_model(saved(tmp_path, lambda state: {"state_dict": state, "epoch": 3})).card.architecture == "medt"


def test_imported_model_has_an_honest_card_and_can_be_taught(tmp_path):
    path = saved(tmp_path, without())
    model = load_model(path, device="cpu")
    card = model.card
    assert (card.key, card.licence, card.scores, card.intensity.kind) == ("model@1", "unknown", (), "unit")
    assert card.sha256 == digest(path.read_bytes())
    taught = save_version(model, model.net)
    assert taught.card.base == f"model@1 {card.sha256}"
    assert taught.card.channels == "bgr"
    assert [found.key for found in versions("model")] == ["model@2"]
    assert (models_folder() / "model" / "v2").is_dir()
