"""Every architecture that attends, in two dimensions and in three: one suite over all of them."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch

from napari_medt.attention import AttentionExplorer, list_sources
from napari_medt.attention.scene import Scene
from napari_medt.attention.sources import STILL, state_of
from napari_medt.core import BadImage, BadModel
from napari_medt.nets import list_nets
from napari_medt.nets.token_attention import VolumeState

NETS = [(info.name, dims) for info in list_nets() if info.sources for dims in info.spatial_dims]
WINDOWS = {2: (32, 32), 3: (16, 16, 16)}
OTHER = {"medt": (64, 64), "logo": (64, 64), "fine": (16, 32, 32), "glam": (16, 32, 32)}


@pytest.fixture(scope="module")
def model_of(make_model):
    return cache(lambda name, dims: make_model(name, OTHER.get(name, WINDOWS[dims])))


def picture(model, shape):
    colours = (3,) if model.card.channels == "rgb" else ()
    return np.random.default_rng(3).random((*shape, *colours), dtype=np.float32)


@pytest.fixture(params=NETS, ids=lambda net: f"{net[0]}-{net[1]}d")
def model(request, model_of):
    return model_of(*request.param)


@torch.inference_mode()
def test_states_add_up_their_rows(model):
    """`weighed` and `received` are sums over rows, which sum to 1 over what a place may look at."""
    scene = Scene(model, picture(model, model.card.window))
    captured = scene.capture(list(scene.jobs()))
    rng = np.random.default_rng(5)
    for source in scene.sources.values():
        state = state_of(source, captured)
        count = math.prod(state.grid)
        cells = rng.choice(count, min(count, 5), replace=False)
        shares = torch.zeros(count)
        shares[cells] = torch.rand(len(cells), generator=torch.Generator().manual_seed(1))
        places = [tuple(int(i) for i in np.unravel_index(cell, state.grid)) for cell in cells]
        rows = [state.row(place) for place in places]
        if source.kind in STILL:
            assert all(torch.equal(row, rows[0]) for row in rows), source.name
            continue
        expected = sum(row * shares[cell] for row, cell in zip(rows, cells, strict=True))
        found = state.weighed(shares.view(state.grid))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
        received = state.weighed(torch.full(state.grid, 1 / count))
        torch.testing.assert_close(received, state.received(), rtol=1e-4, atol=1e-7)
        for place, row in zip(places, rows, strict=True):
            assert 1 <= state.choices(place) <= row[0].numel()
            assert (row.flatten(1).sum(1) <= 1 + 1e-4).all()
            if source.kind != "composed":
                np.testing.assert_allclose(row.flatten(1).sum(1), 1, atol=1e-4)


def test_map_of_a_place_is_the_row_of_its_cell(model):
    shape = tuple(edge + 6 for edge in model.card.window)
    explorer = AttentionExplorer(model, picture(model, shape))
    scene = explorer._scene
    query = tuple(edge - 3 for edge in shape)
    job = scene.nearest(query)
    captured = scene.capture([job])
    for source in explorer.catalogue():
        state = state_of(source, captured)
        cell = tuple(
            (q - part.start) * n // size
            for q, part, n, size in zip(query, job[1], state.grid, scene.padded, strict=True)
        )
        row = state.row(cell)
        for head in (None, source.heads - 1):
            maps = explorer.pick(query, source=source.name, head=head)
            assert all(found.query == query and found.source == source.name and found.caption for found in maps)
            if source.kind in ("row and column", "volume"):
                continue  # the one begins at its patch, the other lies over the volume; see their own tests
            expected = (row.mean(0) if head is None else row[head]).numpy()
            np.testing.assert_allclose(maps[0].data, expected, rtol=1e-4, atol=1e-6, err_msg=source.name)
            # Its first cell begins where the window does.
            corner = maps[0].geometry.position([-0.5] * len(shape)) + 0.5
            np.testing.assert_allclose(corner, [part.start for part in job[1]], atol=1e-6)
            np.testing.assert_allclose(
                maps[0].extras["window"], [[p.start - 0.5 for p in job[1]], [p.stop - 0.5 for p in job[1]]]
            )
        if source.kind == "composed":
            whole, own, tokens, *volume = explorer.pick(query, source=source.name)
            np.testing.assert_allclose(own.data + tokens.data, whole.data, atol=1e-6)
            assert whole.data.sum() + sum(part.data.sum() for part in volume) == pytest.approx(1, abs=1e-4)


def test_whole_image_is_stitched_by_the_shares_of_the_prediction(model):
    """Brute force: what every window says of its places, by its blend weight over the sum of all."""
    from napari_medt.engine.windows import blend_weights

    window = model.card.window
    shape = (window[0] + 5, *window[1:-1], window[-1] - 3)
    explorer = AttentionExplorer(model, picture(model, shape))
    scene, maps = explorer._scene, explorer.overviews()
    assert [found.source for found in maps] == list(explorer.sources())
    total, weight = {name: np.zeros(shape) for name in explorer.sources()}, np.zeros(shape)
    blend = blend_weights(window).astype(float)
    for job in scene.jobs():
        inside = tuple(slice(part.start, min(part.stop, n)) for part, n in zip(job[1], shape, strict=True))
        local = tuple(slice(0, part.stop - part.start) for part in inside)
        weight[inside] += blend[local]
        captured = scene.capture([job])
        for source in explorer.catalogue():
            state = state_of(source, captured)
            if isinstance(state, VolumeState):
                continue
            values = state.received().mean(0).numpy() * (1 if source.kind in STILL else math.prod(state.grid))
            for axis, (size, cells) in enumerate(zip(scene.padded, values.shape, strict=True)):
                values = values.repeat(size // cells, axis=axis)
            total[source.name][inside] += (values[tuple(slice(n) for n in window)] * blend)[local]
    for source, found in zip(explorer.catalogue(), maps, strict=True):
        if source.kind == "volume":
            assert found.data.mean() == pytest.approx(1, abs=1e-3)
            continue
        assert found.geometry.close_to(scene.volume.geometry, shape=shape)
        np.testing.assert_allclose(found.data, total[source.name] / weight, rtol=1e-2, atol=1e-4, err_msg=source.name)
        assert found.even == (None if source.kind in STILL else 1)


def test_structure_in_one_window_is_the_mean_over_its_voxels(model):
    shape = model.card.window
    explorer = AttentionExplorer(model, picture(model, shape))
    mask = np.zeros(shape, bool)
    voxels = [tuple(edge // 2 for edge in shape), tuple(edge // 2 + 1 for edge in shape), (1,) * len(shape)]
    for voxel in voxels:
        mask[voxel] = True
    for source in explorer.catalogue():
        found = explorer.structure(mask, source=source.name)
        if source.kind in STILL or source.kind == "volume":
            continue
        scene = explorer._scene
        job = scene.nearest(voxels[0])
        state = state_of(source, explorer._kept.get(job, source.parts))
        rows = [state.row(scene.cell(voxel, job, state.grid)).mean(0) for voxel in voxels]
        expected = torch.stack(rows).mean(0).numpy() * math.prod(state.grid)
        for axis, (size, cells) in enumerate(zip(scene.padded, expected.shape, strict=True)):
            expected = expected.repeat(size // cells, axis=axis)
        np.testing.assert_allclose(
            found.data, expected[tuple(slice(n) for n in shape)], rtol=1e-3, atol=1e-4, err_msg=source.name
        )


def test_table_has_a_row_for_every_head(model):
    explorer = AttentionExplorer(model, picture(model, model.card.window))
    rows = explorer.head_table()
    assert [(row.source, row.head) for row in rows] == [
        (s.name, h) for s in explorer.catalogue() for h in range(s.heads)
    ]
    diagonal = float(np.linalg.norm(model.card.window))
    for row in rows:
        assert (row.entropy is None) == (row.kind in ("gate", "guided"))
        assert row.entropy is None or -1e-6 <= row.entropy <= 1 + 1e-4, row
        assert (row.distance is None) == (row.kind in (*STILL, "volume"))
        assert row.distance is None or 0 <= row.distance <= diagonal


def test_even_attention_is_one_everywhere(model_of):
    """Networks that cannot tell places apart look at all alike, and so do the heads."""
    for name in ("unetr", "u-transformer", "glam"):
        model = model_of(name, 3 if name == "glam" else 2)
        saved = {key: value.clone() for key, value in model.net.state_dict().items()}
        for key, parameter in model.net.named_parameters():
            if any(part in key for part in ("qkv", "query", "key", "relative")):
                torch.nn.init.zeros_(parameter)
        explorer = AttentionExplorer(model, picture(model, tuple(edge + 4 for edge in model.card.window)))
        names = [
            source.name for source in explorer.catalogue() if source.kind in ("token", "cross", "window", "rollout")
        ]
        for found in explorer.overviews(names):
            np.testing.assert_allclose(found.data, 1, atol=1e-3, err_msg=f"{name} {found.source}")
        for row in explorer.head_table(names):
            only_one = row.distance == 0  # at the deepest level there is one place
            assert row.entropy == pytest.approx(0 if only_one else 1, abs=1e-4), row
        np.testing.assert_allclose(explorer.agreement(names[0]).data, 1, atol=1e-3)
        model.net.load_state_dict(saved)


def test_a_head_that_is_none_is_refused(model_of):
    explorer = AttentionExplorer(model_of("unetr", 2), picture(model_of("unetr", 2), (32, 32)))
    with pytest.raises(BadModel, match="block1 has no head 7; choose 0 to 1"):
        explorer.overview("block1", 7)
    with pytest.raises(BadModel, match="has no head"):
        explorer.pick((1, 1), source="block1", head=-1)


def test_mask_of_another_image_or_of_nothing_is_refused(model_of):
    model = model_of("unetr", 2)
    explorer = AttentionExplorer(model, picture(model, (32, 32)))
    with pytest.raises(BadImage, match="The mask is 4 x 4, but the image is 32 x 32"):
        explorer.structure(np.ones((4, 4), bool), source="block1")
    with pytest.raises(BadImage, match="nothing of this structure"):
        explorer.structure(np.zeros((32, 32), bool), source="block1")


def test_baselines_have_no_sources():
    from napari_medt.nets import create_net

    assert list_sources(torch.nn.Conv2d(1, 2, 1)) == ()
    names = [source.name for source in list_sources(create_net("unetr", preset="small"))]
    assert names == [*(f"block{n}" for n in range(1, 13)), "rollout"]
