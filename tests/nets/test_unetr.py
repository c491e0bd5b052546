"""UNETR against reference numbers of both implementations, its checkpoints, maps, sizes and memory."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.plain.unetr import plain
from napari_medt.core import BadModel, BadWeights
from napari_medt.nets.capture import capture, list_attention_sources
from napari_medt.nets.registry import create_net
from napari_medt.nets.states import LARGEST, DotState
from napari_medt.nets.unetr import unetr
from napari_medt.nets.vit import SelfAttention, rollout
from napari_medt.zoo.forms import unetr as form
from tests.nets.memory import Largest

FIXTURES = Path(__file__).parent / "fixtures"
GOLDEN = Path(__file__).parents[3] / "shared" / "golden" / "3d" / "models"
TINY = {"img_size": 32, "in_channels": 2, "num_classes": 3, "width": 2, "embed": 12, "heads": 3, "hidden": 16}
FORMS = ("self-attention-cv", "monai", "monai-linear")
REFERENCES = {
    "sacv_unetr_instance": (form.SELF_ATTENTION_CV, 5, {"z3": 0, "z6": 1, "z9": 2, "z12": 3}),
    "monai_unetr_instance": (form.MONAI, 4, {"hidden3": 0, "hidden6": 1, "hidden9": 2}),
}


def tiny(**options):
    torch.manual_seed(0)
    return create_net("unetr", **(TINY | options)).eval()


def count(**options):
    with torch.device("meta"):
        return sum(p.numel() for p in create_net("unetr", **options).parameters())


def read(folder):
    return {key: torch.from_numpy(value) for key, value in np.load(folder).items()}


def shapes_of(state):
    return {key: tuple(value.shape) for key, value in state.items()}


def load(known, state, **options):
    """What the zoo does with a foreign state dict."""
    name, found = known.recognise(shapes_of(state))
    found |= options
    net = create_net(name, **found)
    net.load_state_dict(known.map_state(state, found))
    return net.eval()


# ------------------------------------------------------------------------------------------------------ reference numbers


@pytest.fixture(params=REFERENCES)
def reference(request):
    folder = GOLDEN / request.param
    if not folder.is_dir():
        pytest.skip("the reference numbers are not beside this checkout")
    known, heads, maps = REFERENCES[request.param]
    net = load(known, read(folder / "state.npz"), heads=heads)
    return net, read(folder / "io.npz"), maps, json.loads((folder / "manifest.json").read_text())


@torch.no_grad()
def test_same_logits_tokens_and_attention_as_the_implementation(reference):
    net, arrays, maps, _ = reference
    tokens = []
    net.encoder.register_forward_hook(lambda module, inputs, outputs: tokens.extend(outputs))
    with capture(net) as captured:
        logits = net(arrays["input"])
    expected = arrays["output0"]
    assert (logits - expected).abs().max() < 1e-4 * expected.abs().max()
    for name, index in maps.items():
        assert (tokens[index].flatten(2).mT - arrays[name]).abs().max() < 1e-5 * arrays[name].abs().max()
    for block in range(12):
        (state,) = captured[f"block{block + 1}"]
        assert state.grid == (4, 3, 2)
        torch.testing.assert_close(state.full(), arrays[f"attn_block{block:02}"][0], rtol=0, atol=1e-5)


def test_every_parameter_of_the_implementation_is_ours_but_those_it_never_uses(reference):
    net, _, _, manifest = reference
    unused = sum(np.prod(shape) for key, shape, _ in manifest["state"] if "norm_cross_attn" in key)
    assert sum(p.numel() for p in net.parameters()) == manifest["params"] - unused


MONAI_AS_IN_THE_PAPER = {"form": "monai", "embed": 768, "heads": 12, "hidden": 3072}


@pytest.mark.parametrize(
    ("options", "published"),
    [
        ({"preset": "paper"}, 49_667_123),
        (MONAI_AS_IN_THE_PAPER | {"in_channels": 4, "num_classes": 3, "img_size": (128, 128, 64)}, 102_271_539),
        (MONAI_AS_IN_THE_PAPER | {"num_classes": 14}, 92_802_478),
        (MONAI_AS_IN_THE_PAPER | {"num_classes": 14, "width": 32}, 101_805_646),
        (MONAI_AS_IN_THE_PAPER | {"spatial_dims": 2, "img_size": 256}, 87_333_826),
    ],
)
def test_parameter_counts_are_the_published_ones(options, published):
    idle = 12 * 2 * 768 if options.get("form") == "monai" else 0  # a norm in every block that MONAI never uses
    assert count(**options) == published - idle


def test_the_small_preset_is_small():
    assert 300_000 < count(preset="small", spatial_dims=2) < count(preset="small") < 1_500_000


# ------------------------------------------------------------------------------------------------------------ checkpoints


@pytest.mark.parametrize(
    ("name", "which", "size"), [("monai_2d", "monai", (48, 32)), ("monai_linear_2d", "monai-linear", (32, 64))]
)
def test_two_dimensional_checkpoints_of_monai_give_its_logits(name, which, size):
    """The second with a linear patch projection and no convolutions in the skips, as early versions wrote them."""
    arrays = read(FIXTURES / f"unetr_{name}.npz")
    state = {key.removeprefix("state:"): value for key, value in arrays.items() if key.startswith("state:")}
    assert form.MONAI.recognise(shapes_of(state))[1]["form"] == which
    net = load(form.MONAI, state, heads=3, img_size=size)
    with torch.no_grad():
        torch.testing.assert_close(net(arrays["input"]), arrays["output"], rtol=1e-4, atol=1e-5)


def foreign_monai(net, which):
    """A state dict as MONAI would write it for our network."""
    ours = net.state_dict()
    state = {k: ours[v] for k, v in form._names_monai(which).items() if v in ours and ".patch_embeddings.1." not in k}
    key = "vit.patch_embedding.position_embeddings"
    return state | {key: state[key].flatten(2).mT}


@pytest.mark.parametrize("dims", [2, 3])
def test_what_early_versions_of_monai_kept_and_never_used_is_dropped(dims):
    """No norm before cross-attention, but a class token, cross-attention, and shortcuts where no channels change."""
    net = tiny(spatial_dims=dims, form="monai")
    state = foreign_monai(net, "monai") | {
        "vit.patch_embedding.cls_token": torch.ones(1, 1, 12),
        "vit.blocks.3.cross_attn.to_q.weight": torch.ones(12, 12),
        "encoder2.blocks.0.1.conv3.conv.weight": torch.ones(4, 4, *(1,) * dims),
    }
    loaded = load(form.MONAI, state, heads=3)
    x = torch.rand(1, 2, *(32,) * dims)
    with torch.no_grad():
        assert torch.equal(loaded(x), net(x))


@pytest.mark.parametrize("dims", [2, 3])
def test_checkpoints_of_self_attention_cv_in_two_and_three_dimensions(dims):
    net = tiny(spatial_dims=dims)
    ours = net.state_dict()
    state = {k: ours[v] for k, v in form._names_cv().items() if v in ours}
    for key in state:
        if "to_qvk" in key:  # (q k v, head, c) to (c, q k v, head)
            state[key] = state[key].view(3, 3, 4, 12).permute(2, 0, 1, 3).reshape(36, 12)
    key = "embed.position_embeddings.abs_pos_enc"
    state[key] = state[key].flatten(2).mT
    x = torch.rand(1, 2, *(32,) * dims)
    with torch.no_grad():
        assert torch.equal(load(form.SELF_ATTENTION_CV, state, heads=3)(x), net(x))
        assert not torch.equal(load(form.SELF_ATTENTION_CV, state, heads=6)(x), net(x))


def test_published_sizes_are_found_without_being_told():
    assert form.likely_grid(256, 3) == (8, 8, 4)
    assert form.likely_grid(216, 3) == (6, 6, 6)
    assert form.likely_grid(256, 2) == (16, 16)
    assert form.likely_grid(7, 2) == (7, 1)
    with torch.device("meta"):
        net = create_net("unetr", **MONAI_AS_IN_THE_PAPER, num_classes=14)
        state = foreign_monai(net, "monai")
    name, options = form.MONAI.recognise(shapes_of(state))
    assert name == "unetr"
    assert options == {
        "img_size": (96, 96, 96),
        "in_channels": 1,
        "num_classes": 14,
        "spatial_dims": 3,
        "form": "monai",
        "width": 16,
        "embed": 768,
        "heads": 12,
        "hidden": 3072,
    }


def test_what_does_not_fit_a_checkpoint_is_said():
    net = tiny(form="monai")
    state = foreign_monai(net, "monai")
    assert form.SELF_ATTENTION_CV.recognise(shapes_of(state)) is None
    _, options = form.MONAI.recognise(shapes_of(state))
    with pytest.raises(BadWeights, match="does not tell its number of attention heads; give the heads="):
        form.MONAI.map_state(state, options)
    options["heads"] = 3
    with pytest.raises(BadWeights, match="positions for 8 patches, not for 4 x 4 x 4; give the img_size="):
        form.MONAI.map_state(state, options | {"img_size": 64})
    with pytest.raises(KeyError, match=r"encoder1.layer.norm1.weight"):
        form.MONAI.map_state({"encoder1.layer.norm1.weight": torch.ones(2)} | state, options)
    del state["decoder5.conv_block.conv3.conv.weight"]
    assert form.MONAI.recognise(shapes_of(state)) is None


# ------------------------------------------------------------------------------------------------- sizes and precision


@pytest.mark.parametrize("which", FORMS)
@pytest.mark.parametrize("size", [(33, 65, 47), (1, 1, 1), (1, 1), (50, 71)])
def test_any_size_goes_in_and_comes_out(which, size):
    net = tiny(form=which, spatial_dims=len(size))
    with torch.no_grad():
        logits = net(torch.rand(1, 2, *size))
    assert logits.shape == (1, 3, *size)
    assert torch.isfinite(logits).all()


def test_padding_repeats_the_border_and_is_cropped():
    net = tiny(spatial_dims=2)
    x = torch.rand(1, 2, 20, 32)
    padded = torch.cat((x, x[:, :, -1:].expand(1, 2, 12, 32)), 2)
    with torch.no_grad():
        torch.testing.assert_close(net(x), net(padded)[:, :, :20])


def test_positions_of_another_size_are_the_same_function_stretched():
    net = tiny(spatial_dims=3, img_size=(64, 32, 16))
    ramp = torch.arange(4.0).view(4, 1, 1) + 10 * torch.arange(2.0).view(1, 2, 1)
    net.encoder.positions.data[:] = ramp
    stretched = net.encoder._positions((8, 4, 3)).detach()[0, 0]
    expected = ((torch.arange(8) + 0.5) / 2 - 0.5).clamp(0, 3).view(8, 1) + 10 * (
        (torch.arange(4) + 0.5) / 2 - 0.5
    ).clamp(0, 1)
    torch.testing.assert_close(stretched, expected[..., None].expand(8, 4, 3))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.half])
@pytest.mark.parametrize("dims", [2, 3])
def test_low_precision_runs(dtype, dims):
    net = tiny(spatial_dims=dims)
    x = torch.rand(1, 2, *(40,) * dims)
    with torch.no_grad():
        expected, got = net(x), copy.deepcopy(net).to(dtype)(x.to(dtype))
    assert got.dtype == dtype
    assert (got.float() - expected).abs().mean() < 0.1 * expected.std()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"img_size": 40}, "must be 3 multiples of 16, not 40 x 40 x 40"),
        ({"img_size": (32, 32)}, "img_size must be one positive number or 3 of them"),
        ({"form": "monai", "heads": 5}, "5 heads do not divide 12 channels"),
        ({"heads": 13}, "12 channels cannot be shared by 13 heads"),
        ({"form": "pytorch"}, "form is one of self-attention-cv, monai, monai-linear, not pytorch"),
        ({"spatial_dims": 1}, "spatial_dims is 2 or 3, not 1"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(BadModel, match=message):
        tiny(**options)


# -------------------------------------------------------------------------------------------------------------- learning


@pytest.mark.parametrize("which", FORMS)
def test_every_parameter_learns_but_biases_that_instance_norm_takes_away(which):
    net = tiny(form=which, spatial_dims=2).double().train()
    net(torch.rand(2, 2, 32, 48, dtype=torch.float64)).square().mean().backward()
    idle = {name for name, p in net.named_parameters() if p.grad.abs().max() < 1e-12}
    blocks = ["stem", *(f"fuse.{level}" for level in range(4))]
    biases = {f"{block}.{conv}.bias" for block in blocks for conv in ("conv1", "conv2", "shortcut")}
    assert idle - {"stem.shortcut.bias"} == (biases - {"stem.shortcut.bias"} if which == "self-attention-cv" else set())


@pytest.mark.parametrize("which", FORMS)
def test_the_plain_form_has_the_same_numbers_and_gradients(which):
    net = tiny(form=which, spatial_dims=2, heads=4 if which == "monai" else 3).double().train()
    other = plain(net)
    x = torch.rand(2, 2, 48, 32, dtype=torch.float64)
    for one in (net, other):
        one(x).square().mean().backward()
    torch.testing.assert_close(net(x), other(x), rtol=1e-9, atol=1e-9)
    for (name, ours), theirs in zip(net.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-6, atol=1e-10, msg=name)


# ------------------------------------------------------------------------------------------------------------------ maps


def test_sources_name_the_blocks_as_the_paper_counts_them():
    sources = list_attention_sources(tiny())
    assert [source.name for source in sources] == [f"block{n}" for n in range(1, 13)]
    assert {(source.kind, source.heads, source.level) for source in sources} == {("token", 3, 4)}


@pytest.mark.parametrize("which", ["self-attention-cv", "monai"])
@torch.no_grad()
def test_a_token_that_is_planted_is_seen_where_it_lies(which):
    """The first block looks for one channel that only the patch at (3, 0, 1) has."""
    net = tiny(form=which, img_size=(64, 32, 48))
    net.encoder.positions.zero_()
    attention = net.encoder.blocks[0].attention
    attention.qkv.weight.zero_()
    attention.qkv.weight[12] = 30.0 * net.encoder.project.weight.new_tensor([1.0, -1.0] + 10 * [0.0])  # keys, head 0
    net.encoder.blocks[0].norm1.weight.fill_(1.0)
    attention.qkv.weight[0] = 0.0
    net.encoder.blocks[0].norm1.bias.zero_()[2] = 5.0
    attention.qkv.weight[0, 2] = 1.0  # queries of head 0: one constant for all
    net.encoder.project.weight.zero_()
    net.encoder.project.weight[0, 0], net.encoder.project.weight[1, 0] = 1.0, -1.0
    x = torch.zeros(1, 2, 64, 32, 48)
    x[:, 0, 48:64, 0:16, 16:32] = 1.0
    with capture(net, ["block1"], query=(5, 20, 40)) as captured:
        net(x)
    (rows,) = captured["block1"]
    assert rows.shape == (1, 3, 4, 2, 3)
    assert rows[0, 0, 3, 0, 1] > 0.99
    torch.testing.assert_close(rows[0, 1:], torch.full((2, 4, 2, 3), 1 / 24))


@torch.no_grad()
def test_rollout_is_the_product_of_averaged_matrices():
    net = tiny(img_size=(64, 32, 48), spatial_dims=3).double()
    with capture(net) as captured:
        net(torch.rand(2, 2, 64, 32, 48, dtype=torch.float64))
    states = [captured[f"block{n}"][0] for n in range(1, 13)]
    flow = rollout(states)
    assert (flow.grid, flow.samples, flow.nbytes) == ((4, 2, 3), 2, 12 * 2 * 2 * 24 * 12 * 8)
    product = torch.eye(24, dtype=torch.float64)
    for state in states:
        mixed = 0.5 * state.full(1).mean(0) + 0.5 * torch.eye(24)
        product = mixed / mixed.sum(-1, keepdim=True) @ product
    torch.testing.assert_close(flow.row((2, 1, 0), 1).flatten(), product[2 * 6 + 1 * 3])
    torch.testing.assert_close(flow.received(1).flatten(), product.mean(0))
    assert abs(flow.row((3, 0, 2)).sum() - 1) < 1e-12
    with pytest.raises(ValueError, match="one state of every block"):
        rollout([])


def test_captured_states_hold_queries_and_keys_alone():
    net = tiny(spatial_dims=2)
    with capture(net, ["block3"]) as captured:
        net.train()(torch.rand(1, 2, 64, 64))
    (state,) = captured["block3"]
    assert isinstance(state, DotState)
    assert not state.q.requires_grad
    assert state.nbytes == 2 * 16 * 12 * 4
    assert all(t.untyped_storage().nbytes() == t.nbytes for t in (state.q, state.k))


# ---------------------------------------------------------------------------------------------------------------- memory


def test_no_matrix_of_all_tokens_is_made_in_training_capture_or_rows():
    grid = (65, 65)
    tokens = 65 * 65
    assert tokens > LARGEST
    torch.manual_seed(0)
    attention = SelfAttention(8, 2, bias=True)
    x = torch.rand(1, tokens, 8, requires_grad=True)
    with Largest() as largest:
        attention.seen = []
        attention(x, grid).square().sum().backward()
        (state,) = attention.seen
        flow = rollout([state, state])
        row, mean = flow.row((64, 0)), flow.received()
        state.received()
    assert largest.elements < tokens * tokens // 4
    assert abs(float(row.sum()) - 1) < 1e-4
    assert abs(float(mean.sum()) - 1) < 1e-4
    with Largest() as largest:
        plain(attention)(x, grid)
    assert largest.elements >= tokens * tokens  # what the check above would have seen


def test_the_builder_is_what_the_registry_builds():
    assert type(create_net("unetr", **TINY)) is type(unetr(**TINY))
