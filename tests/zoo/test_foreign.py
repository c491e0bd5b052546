"""Checkpoints of the released implementation load directly, or say why they cannot."""

from __future__ import annotations

from argparse import Namespace

import numpy as np
import pytest
import torch

from napari_medt.core import BadWeights
from napari_medt.engine import predict
from napari_medt.zoo import check_model, load_model, models_folder, save_version, versions
from napari_medt.zoo.recognition import recognise
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
        (without("layer1.0.conv_down.weight"), "'layer1.0.conv_down.weight' is missing"),
        (lambda state: state | {"head2.weight": torch.zeros(1)}, "its key 'head2.weight' does not belong to it"),
        (without("layer1.0.hight_block.f_qr"), "mixes the branches of LoGo and MedT"),
        (lambda state: {"a": torch.zeros(1)}, "the file begins with 'a'"),
        (lambda state: list(state), "holds a list, not a state dict"),
        (lambda state: {"model": {1: 2}}, "holds no weights of a network: it has 'model'"),
        (
            lambda state: state | {"conv1.weight": torch.zeros(3)},
            "the key 'conv1.weight' or another is of an unknown shape",
        ),
        (lambda state: state | {"adjust.bias": None}, "'adjust.bias' is missing"),
        (
            lambda state: state | {"layer2.0.width_block.f_kr": torch.zeros(2)},
            "its gate 'layer2.0.width_block.f_kr' holds 2 values, not one",
        ),
        (without("layer2.0.width_block.f_kr"), "its key 'layer2.0.width_block.f_kr' is missing"),
        (
            lambda state: state | {"adjust.bias": torch.full((2,), torch.nan)},
            "model.pth hold NaN or infinity, first in 'head.bias'",
        ),
        (without("layer2.1.conv_up.weight"), "its key 'layer2.1.conv_up.weight' is missing"),
        (
            lambda state: state | {"decoder4.weight": torch.zeros(32, 64, 5, 5)},
            r"'decoder4.weight' has shape \(32, 64, 5, 5\) where \(32, 64, 3, 3\) is needed",
        ),
        (
            lambda state: state | {"layer2.2.conv_up.weight": torch.zeros(64, 32, 1, 1)},
            "its key 'layer2.2.conv_up.weight' has no place in it",
        ),
        (
            lambda state: {"state": {0: {"exp_avg": torch.zeros(1)}}, "param_groups": []},
            "no weights .* 'state', 'param_groups'",
        ),
        (lambda state: {}, "holds no weights of a network: it has nothing"),
        (lambda state: {"net": torch.nn.Linear(1, 1)}, "holds Python code or objects .torch.nn.modules.linear.Linear."),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, change, sentence):
    with pytest.raises(BadWeights, match=sentence):
        load_model(saved(tmp_path, change))


@pytest.mark.parametrize("level", [2, 3, 4])
def test_level_that_lost_its_first_layer_is_missed(level):
    """It must not pass for a shallower network."""
    shapes = {f"Conv{i}.conv.{place}.weight": (4, 4, 3, 3) for i in range(1, 5) for place in (0, 3)}
    shapes |= {f"Att{i}.psi.0.weight": (1, 2, 1, 1) for i in range(2, 5)}
    shapes |= {"Up_conv2.conv.0.weight": (4, 8, 3, 3), "Conv_1x1.weight": (2, 4, 1, 1)}
    assert recognise(shapes)[2]["channels"] == (4, 4, 4, 4)
    missing = f"Conv{level}.conv.0.weight"
    del shapes[missing]
    with pytest.raises(BadWeights, match=f"LeeJunHyun.* but the key '{missing}' is missing"):
        recognise(shapes)


def test_the_nearest_form_is_named_even_if_no_key_fits():
    with pytest.raises(BadWeights, match="the nearest is Attention U-Net of MONAI"):
        recognise({"model.1.submodule.attention.psi.0.conv.bias": (4,)})


def test_truncated_file_is_damaged(tmp_path):
    path = saved(tmp_path, without())
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(BadWeights, match=r"model\.pth is damaged or is not a checkpoint of PyTorch"):
        load_model(path)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return load_model(saved(tmp_path_factory.mktemp("plain"), without()), device="cpu").net.state_dict()


def prefixed(prefix):
    return lambda state: {prefix + key: value for key, value in state.items()}


def uncounted(state):
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


@pytest.mark.parametrize(
    "change",
    [
        *map(prefixed, ("model.", "net.", "_orig_mod.", "_orig_mod.module.", "anything.at.all.")),
        lambda state: {"n_averaged": torch.tensor(3)} | prefixed("module.")(state),
        lambda state: {"epoch": 3, "model_state_dict": state, "optimizer": {"state": {0: {"step": torch.ones(1)}}}},
        lambda state: {"model": {"state_dict": prefixed("model.")(state)}},
        lambda state: {"best_acc": np.float64(0.5), "epoch": np.int64(3), "args": Namespace(lr=0.1), "weights": state},
        lambda state: {key: value.double() if value.is_floating_point() else value for key, value in state.items()},
        uncounted,
    ],
)
def test_wrapping_changes_nothing(tmp_path, plain, change):
    found = load_model(saved(tmp_path, change), device="cpu").net.state_dict()
    assert found.keys() == plain.keys()
    assert all(torch.equal(found[key], plain[key]) for key in uncounted(plain))


def test_half_precision_is_read_as_float32(tmp_path, plain):
    def halved(state):
        return {key: value.half() if value.is_floating_point() else value for key, value in state.items()}

    found = load_model(saved(tmp_path, halved), device="cpu").net.state_dict()
    assert all(value.dtype == plain[key].dtype for key, value in found.items())
    for key, value in plain.items():
        torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-3)


def test_single_output_is_a_class_against_the_background(tmp_path):
    def single(state):
        return state | {key: state[key][1:] - state[key][:1] for key in ("adjust.weight", "adjust.bias")}

    one, two = load_model(saved(tmp_path, single), device="cpu"), load_model(saved(tmp_path, without()), device="cpu")
    image = golden.recipe_input((1, 3, 128, 128), 7)
    with torch.inference_mode():
        logit, logits = one.net(torch.from_numpy(image)), two.net(torch.from_numpy(image))
    torch.testing.assert_close(logit, logits[:, 1:] - logits[:, :1], rtol=1e-4, atol=1e-4)
    assert one.card.classes == ("background", "class 1")
    picture = (255 * image[0].transpose(1, 2, 0)).astype(np.uint8)
    found, wanted = (predict(model, picture, probabilities=True) for model in (one, two))
    assert 0 < wanted.labels.mean() < 1
    assert (found.labels == wanted.labels).mean() > 0.999
    np.testing.assert_allclose(found.probabilities, wanted.probabilities, atol=2e-3)
    kept = save_version(one, one.net)
    assert check_model(kept.card.key).passed


def test_contradicting_options_are_refused(tmp_path):
    path = saved(tmp_path, without())
    with pytest.raises(BadWeights, match="holds medt, not logo"):
        load_model(path, arch="logo")
    with pytest.raises(BadWeights, match="was made with img_size=128, not 256"):
        load_model(path, img_size=256)


@pytest.mark.parametrize(
    ("option", "why"), [({"heads": 3}, "3 heads do not fit"), ({"heads": 0}, "0 heads"), ({}, "heads=")]
)
def test_heads_that_do_not_fit_are_said(tmp_path, option, why):
    state = {
        "embed.patch_embeddings.weight": torch.zeros(21, 1, 16, 16),
        "embed.position_embeddings.abs_pos_enc": torch.zeros(1, 4, 21),
        "transformer.block_list.0.mhsa.to_qvk.weight": torch.zeros(48, 21),
        "transformer.block_list.0.mhsa.W_0.weight": torch.zeros(21, 16),
        "transformer.block_list.0.linear.0.weight": torch.zeros(16, 21),
        "init_conv.conv_block.0.weight": torch.zeros(2, 1, 3, 3),
        "out_conv.1.weight": torch.zeros(2, 2, 1, 1),
    }
    torch.save(state, path := tmp_path / "unetr.pth")
    with pytest.raises(BadWeights, match=why):
        load_model(path, **option)


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
