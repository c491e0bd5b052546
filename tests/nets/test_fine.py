"""FINE and GLAM against the numbers of the released networks, their windows, positions, maps, counts and memory."""

from __future__ import annotations

import copy
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks.plain.fine import plain
from napari_medt.core import BadModel
from napari_medt.nets.capture import capture, list_attention_sources
from napari_medt.nets.fine import VolumeCells
from napari_medt.nets.nnformer_host import Stage, TokenPlan
from napari_medt.nets.registry import create_net
from napari_medt.nets.token_attention import Crop, TokenAttention, TokenState, compose
from napari_medt.nets.window_attention import Layout, WindowAttention, relative_index
from napari_medt.zoo.forms import fine as forms
from tests.nets.memory import Largest

GOLDEN = Path(__file__).parents[3] / "shared" / "golden" / "3d" / "models"
TINY = {"width": 8, "heads": (1, 2, 4), "depths": (2, 2, 2), "window": 2, "patch": (1, 2, 2), "num_classes": 3}
BOTH = pytest.mark.parametrize("name", ["fine", "glam"])
WIRINGS = pytest.mark.parametrize("wiring", ["standard", "authors"])


def tiny(name, **options):
    torch.manual_seed(0)
    size = {"img_size": (8, 16, 16)} if name == "fine" else {}
    net = create_net(name, **(TINY | size | options)).eval()
    with torch.no_grad():
        for parameter in net.parameters():  # enough that attention is far from even
            parameter.add_(0.3 * torch.randn_like(parameter))
    return net


def count(name, **options):
    with torch.device("meta"):
        return sum(p.numel() for p in create_net(name, **options).parameters())


# ------------------------------------------------------------------------------------------------------- reference numbers


def reference(name, form):
    if not (GOLDEN / name).is_dir():
        pytest.skip("the reference numbers of the released networks lie beside the checkout only")
    state, io = (
        {k: torch.from_numpy(v) for k, v in np.load(GOLDEN / name / f"{f}.npz").items()} for f in ("state", "io")
    )
    found = form.recognise({key: tuple(value.shape) for key, value in state.items()})
    return state, io, found


def build(state, form, found):
    net = create_net(found[0], **found[1]).eval()
    net.load_state_dict(form.map_state(state, found[1]))
    return net


def published_input():
    return torch.from_numpy(np.random.RandomState(2).standard_normal((1, 1, 64, 128, 128)).astype(np.float32))


def run(net, *position):
    """Logits at the stored voxels, those of half resolution, and the attention."""
    kept = []
    handle = net.host.decoder[-2].register_forward_hook(lambda _, __, out: kept.append(out.movedim(-1, 1)))
    with torch.inference_mode(), capture(net) as captured:
        full = net(published_input(), *position)
        half = net.host.halfway(kept[0])
    handle.remove()
    return full[:, :, 4::8, 4::8, 4::8], half[:, :, 4::8, 4::8, 4::8], captured


def near(ours, theirs):
    return (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


def attention_of(captured, key):
    """Ours for one of their names."""
    *_, stage, _, block, kind, _, _ = key.split("_")
    ours = f"encoder.{stage}" if "model_down" in key else f"decoder.{2 - int(stage)}"
    state = captured[f"{ours}.block{block}.{'token' if kind == 'gt' else 'volume'}"][0]
    return state.rows(slice(None)) if kind == "gt" else state.rows()


def test_fine_is_the_released_network_call_by_call():
    state, io, found = reference("fine", forms.FINE)
    assert found[0] == "fine"
    assert found[1]["img_size"] == (64, 128, 128)
    assert found[1]["heads"] == (2, 4, 8, 16)
    net = build(state, forms.FINE, found)
    full, half, captured = run(net, torch.tensor([[0, -200, 150]]))
    assert near(full, io["output0"])
    assert near(half, io["output1"])
    keys = [key for key in io if key.startswith("attn_")]
    assert len(keys) == 24
    for (
        key
    ) in keys:  # random weights make products of some tens: 1e-6 of rounding before is up to 1e-2 in the second block
        tolerance = 1e-4 if "blocks_0" in key and "vt" not in key else 2e-4 if "blocks_0" in key else 2e-2
        torch.testing.assert_close(attention_of(captured, key), io[key][0], rtol=0, atol=tolerance, msg=key)
    again, _, _ = run(net, torch.tensor([[10, 230, -256]]))
    assert near(again, io["call2_output0"])
    assert torch.equal(net.cells.visits, io["vt_check_after2"][:, 0])
    assert torch.equal(net.cells.near(io["pos_table"]), io["vtpos_table"])
    assert sum(p.numel() for p in net.parameters()) + 12_291 + 262_656 + 25 == 1_629_826


def test_glam_is_the_released_network():
    state, io, found = reference("glam3d", forms.GLAM)
    assert found[0] == "glam"
    net = build(state, forms.GLAM, found)
    full, half, captured = run(net)
    assert near(full, io["output0"])
    assert near(half, io["output1"])
    keys = [key for key in io if key.startswith("attn_")]
    assert len(keys) == 10
    for key in keys:
        torch.testing.assert_close(attention_of(captured, key), io[key][0], rtol=0, atol=1e-5, msg=key)


def test_forms_tell_the_two_apart_and_name_the_first_unknown_key():
    state, _, (_, options) = reference("fine", forms.FINE)
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    assert forms.GLAM.recognise(shapes) is None
    assert forms.FINE.recognise({"vt_check": (25, 1)}) is None
    for key in ("surprise", "model_down.layers.0.blocks.0.norm3.weight", "encoder.layers.0.blocks.1.attn.extra.weight"):
        with pytest.raises(KeyError, match=key):
            forms.FINE.map_state({key: torch.ones(1)} | state, options)
    table = state["model_down.layers.0.blocks.0.attn.relative_position_index"]
    assert torch.equal(relative_index((4, 4, 4), 4, "authors"), table)


@pytest.mark.parametrize(
    ("name", "total", "never"),
    [
        # The last downsampling and a third head are computed and dropped in both; the positions of windows in GLAM.
        ("fine", 222_350_466, 37_754_880 + 688_142),
        ("glam", 253_547_778, 37_754_880 + 688_142 + 259_584),
    ],
)
def test_published_parameter_counts(name, total, never):
    assert count(name, preset="paper") + never == total


def test_sizes_of_the_presets():
    sizes = {name: [count(name, preset=preset) for preset in ("small", "standard")] for name in ("fine", "glam")}
    assert sizes == {"fine": [1_132_388, 9_666_760], "glam": [1_212_260, 10_557_640]}


# -------------------------------------------------------------------------------------------------------------- windows

GRIDS = [((4, 8, 6), 2), ((5, 6, 9), 4), ((3, 2, 7), 4), ((1, 1, 1), 4)]


@pytest.mark.parametrize(("grid", "window"), GRIDS)
@pytest.mark.parametrize("shifted", [False, True])
def test_windows_put_back_what_they_take(grid, window, shifted):
    layout = Layout.over(grid, window, shifted=shifted)
    x = torch.rand(2, *grid, 3)
    windows = layout.split(x)
    assert windows.shape[1:3] == layout.cells.shape
    assert torch.equal(layout.join(windows), x)
    for cell in itertools.product(*map(range, grid)):
        window_, place = layout.locate(cell)
        assert torch.equal(windows[:, window_, place], x[:, *cell])
    shares = torch.rand(2, len(layout.cells))
    torch.testing.assert_close(layout.spread(shares).sum((1, 2, 3)), shares.sum(1))


@pytest.mark.parametrize(
    ("grid", "window", "wiring"), [*((*case, "standard") for case in GRIDS), (*GRIDS[0], "authors")]
)
@torch.no_grad()
def test_window_attention_place_by_place(grid, window, wiring):
    """Held against a loop over places that knows nothing of rolls, masks and padding."""
    torch.manual_seed(0)
    module = WindowAttention(6, 2, window, shifted=True, wiring=wiring).double()
    module.relative.normal_()
    layout = Layout.over(grid, window, shifted=True)
    x = torch.randn(1, *grid, 6, dtype=torch.float64)
    tokens = torch.randn(1, math.prod(layout.counts), 2, 6, dtype=torch.float64)
    out, read = module(x, tokens)

    def home(cell):
        """Window of a cell: windows begin at the shift, what lies before it belongs to the last ones."""
        return tuple(
            (c - shift) // side if c >= shift else n - 1
            for c, shift, side, n in zip(cell, layout.shift, layout.window, layout.counts, strict=True)
        )

    span = 2 * window - 1
    steps = (span * span if wiring == "standard" else 3 * window - 1, span, 1)
    cells = list(itertools.product(*map(range, grid)))

    def place_in_window(cell):
        padded = [n * side for n, side in zip(layout.counts, layout.window, strict=True)]
        return [(c - s) % p % side for c, s, p, side in zip(cell, layout.shift, padded, layout.window, strict=True)]

    for index, at in enumerate(itertools.product(*map(range, layout.counts))):
        inside = [cell for cell in cells if home(cell) == at]
        joint = torch.cat((tokens[0, index], *(x[0, *cell][None] for cell in inside)))
        q, k, v = module.qkv(joint).view(len(joint), 3, 2, 3).permute(1, 2, 0, 3)
        logits = q @ k.mT / math.sqrt(3)
        for i, one in enumerate(inside):
            for j, other in enumerate(inside):
                if any(abs(a - b) >= side for a, b, side in zip(one, other, layout.window, strict=True)):
                    logits[:, 2 + i, 2 + j] = -torch.inf
                    continue
                offset = [a - b + window - 1 for a, b in zip(place_in_window(one), place_in_window(other), strict=True)]
                row = sum(o * step for o, step in zip(offset, steps, strict=True))
                logits[:, 2 + i, 2 + j] += module.relative[row]
        expected = module.proj((logits.softmax(-1) @ v).transpose(0, 1).flatten(1))
        torch.testing.assert_close(read[0, index], expected[:2])
        for cell, value in zip(inside, expected[2:], strict=True):
            torch.testing.assert_close(out[0, *cell], value)


@pytest.mark.parametrize("grid", [(6, 6, 6), (8, 4, 4), (9, 5, 12)])
@torch.no_grad()
def test_authors_windows_step_by_step(grid):
    """What hangs over is seen as zeros, and nothing is shifted if one axis has a single window."""
    torch.manual_seed(0)
    side, tokens = 4, 2
    module = WindowAttention(6, 2, side, shifted=True, wiring="authors").double()
    module.relative.normal_()
    x = torch.randn(1, *grid, 6, dtype=torch.float64)
    over = (0, 0, *(n for size in reversed(grid) for n in (0, -size % side)))
    padded = F.pad(x, over)
    counts = [size // side for size in padded.shape[1:4]]
    shift = side // 2 if min(grid) > side else 0
    region = torch.zeros(padded.shape[:-1])
    for axis, code in ((1, 1), (2, 2), (3, 4)):
        region.narrow(axis, 0, shift).add_(code)

    def windows(t):
        t = t.roll((-shift,) * 3, (1, 2, 3))
        return torch.stack(
            [
                t[0, z : z + side, y : y + side, c : c + side].flatten(0, 2)
                for z, y, c in itertools.product(*(range(0, side * count, side) for count in counts))
            ]
        )

    extra = torch.randn(1, math.prod(counts), tokens, 6, dtype=torch.float64)
    apart = windows(region)
    q, k, v = module.qkv(torch.cat((extra[0], windows(padded)), 1)).unflatten(-1, (3, 2, 3)).permute(2, 0, 3, 1, 4)
    logits = q @ k.mT / math.sqrt(3)
    logits[..., tokens:, tokens:] += module.relative[relative_index((side,) * 3, side, "authors")].permute(2, 0, 1)
    logits[..., tokens:, tokens:] -= 100.0 * (apart[:, None, :, None] != apart[:, None, None])
    expected = module.proj((logits.softmax(-1) @ v).transpose(1, 2).flatten(2))
    module.seen = []
    out, read = module(x, extra)
    torch.testing.assert_close(read[0], expected[:, :tokens])
    inside = windows(F.pad(torch.ones_like(x), over))
    torch.testing.assert_close(windows(F.pad(out, over)), expected[:, tokens:] * inside)
    rows = torch.stack([module.seen[0].row(cell) for cell in itertools.product(*map(range, grid))])
    torch.testing.assert_close(rows.sum((2, 3, 4)), torch.ones_like(rows[:, :, 0, 0, 0]))


def test_positions_of_a_smaller_crop_are_the_middle_of_the_authors_table():
    table = torch.arange(512.0)[:, None]
    options = {"img_size": (32, 64, 64), "patch": (2, 4, 4), "window": (4, 4, 4, 2), "heads": (2, 2, 2, 2)}
    for key, ours, first, last in (
        ("model_down.layers.0.pe", "host.encoder.0.positions", 224, 287),
        ("encoder.layers.1.pe", "host.decoder.1.positions", 252, 259),
    ):
        mapped = forms.map_state({key: table}, options, architecture="fine")[ours]
        assert (mapped[0].item(), mapped[-1].item()) == (first, last)
    assert forms.map_state({"model_down.layers.3.pe": table[:1]}, options | {"img_size": 64}, architecture="fine")[
        "host.encoder.3.positions"
    ].shape == (2, 1)


def test_relative_positions_are_told_apart_unlike_those_of_the_authors():
    ours, theirs = (relative_index((4, 4, 4), 4, wiring) for wiring in ("standard", "authors"))
    assert (len(ours.unique()), ours.max()) == (343, 342)
    assert (len(theirs.unique()), theirs.max()) == (115, 114)
    small = relative_index((2, 4, 1), 4, "standard")
    assert torch.equal(small, ours.view(4, 4, 4, 4, 4, 4)[:2, :, :1, :2, :, :1].reshape(8, 8))


@BOTH
@WIRINGS
@torch.no_grad()
def test_equals_the_plain_form(name, wiring):
    net = tiny(name, wiring=wiring, window_tokens=2).double()
    x = torch.rand(2, 1, 9, 17, 24, dtype=torch.float64)
    torch.testing.assert_close(net(x), plain(net)(x), rtol=1e-9, atol=1e-9)


# -------------------------------------------------------------------------------------------------- positions in the volume


def test_cells_are_the_nearest_in_every_direction():
    cells = VolumeCells((3, 5, 5), (64, 128, 128), wiring="standard")
    positions = torch.tensor(
        list(itertools.product((-150, -60, -5, 40, 300), (-400, -130, 1, 270, 319, 320, 900), (-7, 64)))
    )
    centres = [[(i - (n - 1) / 2) * size for i in range(n)] for n, size in ((3, 64), (5, 128), (5, 128))]
    for position, chosen in zip(positions, cells.near(positions), strict=True):
        expected = []
        for at, along in zip(position.tolist(), centres, strict=True):
            by_distance = sorted(range(len(along)), key=lambda i, at=at, along=along: abs(along[i] - at))
            expected.append(by_distance[:2])
        assert set(chosen.tolist()) == {(z * 5 + y) * 5 + x for z, y, x in itertools.product(*expected)}


def test_far_border_is_mended_unless_the_authors_are_followed():
    beyond = torch.tensor([[0, 330, 330]])
    ours, theirs = (VolumeCells((1, 5, 5), (64, 128, 128), wiring=w).near(beyond) for w in ("standard", "authors"))
    assert ours.tolist() == [[24, 19, 23, 18]]
    assert theirs.tolist() == [[0, 5, 1, 6]]


@torch.inference_mode()
def test_position_matters_and_evaluation_leaves_no_trace():
    net = tiny("fine", volume_grid=(3, 3, 3))
    net.cells.visits.fill_(1)
    net = net.double()
    x = torch.rand(1, 1, 8, 16, 16, dtype=torch.float64).expand(3, -1, -1, -1, -1)
    positions = torch.tensor([[0, 0, 0], [-9, 20, 3], [40, -40, 40]])
    before = copy.deepcopy(net.state_dict())
    together = net(x, positions)
    for i in range(3):
        torch.testing.assert_close(net(x[:1], positions[i : i + 1]), together[i : i + 1])
    assert (together[0] - together[1]).abs().max() > 1e-3
    assert (together[1] - together[2]).abs().max() > 1e-3
    torch.testing.assert_close(net(x[:1]), together[:1])
    torch.testing.assert_close(net(x[:2], positions[1]), net(x[:2], positions[[1, 1]]))
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


def test_visits_are_counted_in_training_and_by_the_authors_always():
    for wiring, in_evaluation in (("standard", 0), ("authors", 4)):
        net = tiny("fine", wiring=wiring)
        with torch.inference_mode():
            net(torch.rand(1, 1, 8, 16, 16))
        assert net.cells.visits.sum() == in_evaluation
        net.train()(torch.rand(2, 1, 8, 16, 16), torch.tensor([[0, 0, 0], [0, 30, -30]]))
        assert net.cells.visits.sum() == in_evaluation + 8
        assert "cells.visits" not in dict(net.named_parameters())


def heard(wiring, depth):
    """Cells of the volume whose token changes what a stage gives, seen by gradients."""
    torch.manual_seed(0)
    plan = TokenPlan("fine", 1, 25, wiring)
    stage = Stage(8, 2, 2, plan, grid=(4, 4, 4), drops=[0.0] * depth).double()
    visible = torch.zeros(1, 25, dtype=torch.bool)
    visible[:, [0, 1, 5, 6, 20]] = True
    stage(
        torch.rand(1, 4, 4, 4, 8).double(), Crop(torch.tensor([[0, 5, 1, 6]]), visible, (1, 5, 5))
    ).square().sum().backward()
    return stage.volume.grad.abs().sum(1).nonzero()[:, 0].tolist()


def test_the_rest_of_the_volume_is_heard():
    """The released network has two blocks a stage: its volume tokens attend to each other, and nothing reads the result."""
    assert heard("standard", 2) == [0, 1, 5, 6, 20]
    assert heard("authors", 2) == [0, 1, 5, 6]
    assert heard("authors", 3) == [0, 1, 5, 6, 20]


# ------------------------------------------------------------------------------------------------------------ the networks


@BOTH
@pytest.mark.parametrize("size", [(1, 1, 1), (5, 17, 30), (16, 24, 8)])
def test_any_size(name, size):
    net = tiny(name, in_channels=2)
    with torch.inference_mode():
        assert net(torch.rand(1, 2, *size)).shape == (1, 3, *size)
    out = net.train()(torch.rand(2, 2, *size))
    assert out.logits.shape == (2, 3, *size)
    assert out.halfway.shape == (2, 3, *(-(-n // step) for n, step in zip(size, net.step, strict=True)))
    assert net.step == (1, 1, 1)


@BOTH
@pytest.mark.parametrize("size", [(16, 32, 32), (13, 33, 31)])
def test_loss_supervises_both_outputs_at_the_same_places(name, size):
    net = tiny(name, patch=(2, 4, 4)).train()
    assert net.step == (1, 2, 2)
    out = net(torch.rand(1, 1, *size))
    target = torch.randint(3, (1, *size))
    loss = net.loss(out, target, F.cross_entropy)
    full, half = F.cross_entropy(out.logits, target), F.cross_entropy(out.halfway, target[:, :, ::2, ::2])
    torch.testing.assert_close(loss, 2 / 3 * full + 1 / 3 * half)


@BOTH
def test_every_parameter_learns(name):
    net = tiny(name, drop_path=0.0).double().train()
    x = torch.rand(2, 1, 8, 16, 16, dtype=torch.float64)
    net.loss(net(x), torch.randint(3, (2, 8, 16, 16)), F.cross_entropy).backward()
    still = {name_ for name_, p in net.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-12}
    assert still == set()


def test_layers_of_the_authors_that_nothing_reads():
    net = tiny("fine", wiring="authors").train()
    x = torch.rand(1, 1, 8, 16, 16)
    net.loss(net(x), torch.randint(3, (1, 8, 16, 16)), F.cross_entropy).backward()
    still = {name for name, p in net.named_parameters() if p.grad is None}
    stages = [f"host.{side}" for side in ("encoder.0", "encoder.1", "encoder.2", "decoder.0", "decoder.1")]
    parts = ("blocks.0.mixer.volume", "blocks.1.mixer.attend", "blocks.1.mixer.volume")
    leaves = ("qkv.weight", "qkv.bias", "proj.weight", "proj.bias")
    assert still == {".".join(name) for name in itertools.product(stages, parts, leaves)}


def test_ablation_by_options():
    def kinds(**options):
        return {source.kind for source in list_attention_sources(tiny("fine", **options))}

    assert kinds() == {"window", "token", "volume"}
    assert kinds(volume_tokens=False) == {"window", "token"}
    assert kinds(volume_tokens=False, window_tokens=0) == {"window"}
    host, plain_glam = tiny("fine", volume_tokens=False, window_tokens=0), tiny("glam", window_tokens=0)
    assert host.takes_position is False
    host.load_state_dict(plain_glam.state_dict())
    x = torch.rand(1, 1, 8, 16, 16)
    with torch.inference_mode():
        assert torch.equal(host(x), plain_glam(x))


@pytest.mark.parametrize(("tokens", "whole"), [(0, False), (1, True)])
def test_tokens_carry_what_windows_cannot(tokens, whole):
    torch.manual_seed(0)
    stage = Stage(8, 2, 2, TokenPlan("glam", tokens, 0, "standard"), grid=(8, 2, 2), drops=[0.0, 0.0])
    x = torch.rand(1, 8, 2, 2, 8, requires_grad=True)
    stage(x)[0, 0, 0, 0].sum().backward()
    reached = x.grad.abs().sum((0, 2, 3, 4)) > 0
    assert reached.tolist() == ([True] * 8 if whole else [True] * 2 + [False] * 6)


def test_options_that_do_not_fit_are_refused():
    for options, words in (
        ({"window_tokens": 0}, "give volume_tokens=False too"),
        ({"heads": (3, 2, 4)}, "8 channels cannot be shared by 3 heads"),
        ({"depths": (2, 2)}, "must name the same stages"),
        ({"patch": (3, 2, 2)}, "patch three of 1, 2 and 4"),
        ({"volume_grid": (5, 5)}, "one positive number or 3"),
    ):
        with pytest.raises(BadModel, match=words):
            create_net("fine", **(TINY | options))


def test_half_of_the_precision():
    net = tiny("fine").bfloat16()
    x = torch.rand(1, 1, 6, 11, 16)
    with torch.inference_mode():
        assert torch.isfinite(net(x.bfloat16())).all()


def test_left_out_branches_keep_their_mean():
    net = tiny("glam", drop_path=0.5).train()
    drop = net.host.encoder[-1].blocks[-1].drop
    kept = drop(torch.ones(4000, 1, 1))
    assert set(kept.unique().tolist()) == {0.0, 2.0}
    assert abs(kept.mean() - 1) < 0.1


# ----------------------------------------------------------------------------------------------------------------- attention


@BOTH
@WIRINGS
@torch.no_grad()
def test_rows_sum_to_one_and_received_is_their_mean(name, wiring):
    net = tiny(name, wiring=wiring, window_tokens=2, depths=(3, 2, 2), window=3).double()
    x = torch.rand(2, 1, 3, 8, 6, dtype=torch.float64)
    with capture(net) as captured:
        seen = net(x, torch.tensor([[0, 0, 0], [0, 20, 20]]))
    if wiring == "standard":
        torch.testing.assert_close(net(x, torch.tensor([[0, 0, 0], [0, 20, 20]])), seen, rtol=0, atol=0)
    for source in list_attention_sources(net):
        (state,) = captured[source.name]
        assert state.nbytes > 0
        cells = list(itertools.product(*map(range, state.grid)))
        rows = torch.stack([state.row(cell, 1) for cell in cells])
        assert rows.shape[1] == source.heads
        torch.testing.assert_close(rows.flatten(2).sum(-1), torch.ones(len(cells), source.heads).double())
        mean = state.received(1)
        torch.testing.assert_close(mean.flatten(1).sum(-1), torch.ones(source.heads).double())
        torch.testing.assert_close(mean, rows.mean(0))


@pytest.mark.parametrize("shifted", [False, True])
@torch.no_grad()
def test_a_bright_place_is_seen_where_it_is(shifted):
    """All places ask for what is bright: those of its window look there, whatever the shift and the ragged border."""
    module = WindowAttention(2, 1, 4, shifted=shifted, wiring="standard")
    module.relative.zero_()
    module.qkv.weight.zero_()
    module.qkv.bias.copy_(torch.tensor([9.0, 0, 0, 0, 0, 0]))
    module.qkv.weight[2, 0] = 9.0
    x = torch.zeros(1, 6, 9, 8, 2)
    x[0, 3, 7, 5, 0] = 1
    module.seen = []
    module(x, None)
    (state,) = module.seen
    for cell in ((3, 7, 5), (3, 6, 5), (3, 7, 4)):
        assert np.unravel_index(state.row(cell)[0].argmax().item(), state.grid) == (3, 7, 5)
    assert state.row((0, 0, 0))[0, 3, 7, 5] == 0


@torch.no_grad()
def test_a_bright_window_and_a_bright_cell_are_seen_where_they_are():
    layout = Layout.over((4, 6, 4), 2, shifted=False)
    k = torch.zeros(1, 1, 4 + 12, 1)
    k[0, 0, 4 + layout.locate((3, 4, 1))[0]] = 20
    crop = Crop(torch.tensor([[7, 12, 8, 13]]), torch.ones(1, 25, dtype=torch.bool), (1, 5, 5))
    row = TokenState(torch.ones(1, 1, 16, 1), k, 1.0, layout, 1, crop).row((0, 0, 0))[0]
    assert (row > 0.1).nonzero().tolist() == [list(c) for c in itertools.product((2, 3), (4, 5), (0, 1))]
    net = tiny("fine")
    net.cells.visits.fill_(1)
    attention = net.host.encoder[0].blocks[0].mixer.volume
    attention.qkv.weight.zero_()
    attention.qkv.bias[:8], attention.qkv.weight[8:16] = 9.0, 9 * torch.eye(8)
    net.host.encoder[0].volume.zero_()[8] = 1.0
    with capture(net, ["encoder.0.block0.volume"]) as captured:
        net(torch.rand(1, 1, 8, 16, 16))
    row = captured["encoder.0.block0.volume"][0].row((0, 0, 0))[0]
    assert np.unravel_index(row.argmax().item(), row.shape) == (0, 1, 3)


@BOTH
@WIRINGS
@torch.no_grad()
def test_hops_compose_to_one(name, wiring):
    net = tiny(name, wiring=wiring, window_tokens=2).double()
    with capture(net) as captured:
        net(torch.rand(1, 1, 5, 12, 8, dtype=torch.float64))
    ask, read, mix = (captured[f"encoder.0.{part}"][0] for part in ("block1.window", "block0.window", "block0.token"))
    volume = captured["encoder.0.block0.volume"][0] if name == "fine" and wiring == "standard" else None
    for cell in ((0, 0, 0), (4, 5, 3), (2, 1, 0)):
        reach = compose(ask, mix, read, volume, cell=cell)
        total = reach.image.flatten(1).sum(1)
        assert reach.image.shape == (1, *ask.grid)
        assert reach.image.min() > 0
        if name == "fine":
            assert reach.volume.shape == (1, 1, 5, 5)
            assert total < 1
            total = total + reach.volume.flatten(1).sum(1)
        torch.testing.assert_close(total, torch.ones(1).double())


@torch.no_grad()
def test_hops_compose_as_the_network_does():
    """With values that pass unchanged, the composed map is exactly how much each place gave to the one that asks."""
    torch.manual_seed(0)
    first, second = (WindowAttention(4, 1, 2, shifted=s, wiring="standard").double() for s in (False, True))
    mixer = TokenAttention(4, 1).double()
    for module in (first, second, mixer):
        module.qkv.weight.mul_(30)
        module.qkv.weight[8:], module.proj.weight[:] = torch.eye(4), torch.eye(4)
        module.qkv.bias.zero_(), module.proj.bias.zero_()
    x = torch.randn(1, 4, 6, 4, 4, dtype=torch.float64)
    tokens = torch.randn(1, 12, 1, 4, dtype=torch.float64)
    layout = Layout.over((4, 6, 4), 2, shifted=False)
    for module in (first, second, mixer):
        module.seen = []
    _, read = first(x, tokens)
    (window,) = first.seen
    share = torch.stack([window.read()[w, 0, 0] for w in range(12)])  # what tokens read, all of it from places
    read = torch.einsum("wp,wpc->wc", share, layout.split(x)[0])[None]
    mixed = mixer(read, lambda q, k, scale: TokenState(q, k, scale, layout, 1, None))
    out, _ = second(x, mixed[:, :, None])
    reach = compose(second.seen[0], mixer.seen[0], window, cell=(1, 2, 3))
    torch.testing.assert_close(torch.einsum("hzyx,zyxc->c", reach.image, x[0]), out[0, 1, 2, 3])


# -------------------------------------------------------------------------------------------------------------------- memory


def test_many_windows_never_make_a_matrix():
    module = TokenAttention(8, 1)
    x = torch.rand(1, 5000, 8, requires_grad=True)
    layout = Layout.over((50, 20, 10), 2, shifted=False)
    module.seen = []
    with Largest() as largest:
        module(x, lambda q, k, scale: TokenState(q, k, scale, layout, 4, None)).sum().backward()
        module.seen[0].received()
    assert largest.elements <= 512 * 5000
