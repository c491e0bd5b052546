"""Attention in image space: exact weights, exact places, bounded memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_medt.attention import AttentionExplorer, attention_maps
from napari_medt.attention.scene import Scene
from napari_medt.core import BadImage, BadModel, Geometry, Volume
from napari_medt.nets import create_net
from napari_medt.nets.capture import capture

WINDOW = 64


@pytest.fixture(scope="module")
def model(make_model):
    return make_model("medt", window=WINDOW)


@pytest.fixture
def image(rng):
    return rng.integers(0, 255, (100, 140, 3), dtype=np.uint8)


def place(found, index):
    """World position of a cell of a map."""
    return (found.geometry.affine @ [*index, 1.0])[:-1]


def test_map_of_a_pixel_is_the_product_of_width_and_height_attention(model, rng):
    """Brute force: every weight of the block's value path, from the full attention tensors."""
    image = rng.random((WINDOW, WINDOW, 3), dtype=np.float32)
    explorer = AttentionExplorer(model, image)
    with torch.inference_mode(), capture(model.net, ("global.layer2.1.height", "global.layer2.1.width")) as captured:
        model.net(torch.from_numpy(explorer.window_input(0))[None])
    height, width = (
        captured[f"global.layer2.1.{axis}"][0].full() for axis in ("height", "width")
    )  # (heads, lines, i, j)
    for query, (y0, x0) in {(0, 0): (0, 0), (63, 17): (15, 4), (30, 41): (7, 10)}.items():
        expected = torch.einsum("hx,hxy->yx", width[:, y0, x0], height[:, :, y0]) / len(height)
        whole, row, column = explorer.pick(query, source="global.layer2.1")
        np.testing.assert_allclose(whole.data, expected.numpy(), atol=1e-6)
        np.testing.assert_allclose(row.data[0], width[:, y0, x0].mean(0), atol=1e-6)
        np.testing.assert_allclose(column.data[:, 0], height[:, x0, y0].mean(0), atol=1e-6)
        one_head = explorer.pick(query, source="global.layer2.1", head=3)[0]
        np.testing.assert_allclose(
            one_head.data, torch.einsum("x,xy->yx", width[3, y0, x0], height[3, :, y0]), atol=1e-6
        )


@pytest.mark.parametrize("query", [(0, 0), (99, 139), (50, 70), (13, 128)])
def test_maps_lie_exactly_over_the_picture(model, image, query):
    geometry = Geometry(np.array([[0.5, 0, 7], [0, 0.25, -3], [0, 0, 1]]), "um")
    volume = Volume.from_array(image, geometry=geometry)
    explorer = AttentionExplorer(model, volume)
    for source in explorer.sources():
        whole, row, column = explorer.pick(query, source=source)
        steps = np.linalg.norm(whole.geometry.affine[:-1, :-1], axis=0) / geometry.spacing
        np.testing.assert_allclose(whole.data.sum(), 1, atol=1e-4)
        assert all(WINDOW % step == 0 for step in steps)
        # The row and the column cross in the cell that holds the pixel.
        crossing = np.array([place(row, (0, 0))[0], place(column, (0, 0))[1]])
        pixel = geometry.affine[:-1, :-1] @ query + geometry.affine[:-1, -1]
        assert (np.abs(crossing - pixel) <= steps * geometry.spacing / 2).all(), source
        # Cells begin at the edge of a window or patch, inside the picture.
        corner = (np.linalg.inv(geometry.affine) @ [*place(whole, (-0.5, -0.5)), 1.0])[:-1] + 0.5
        assert (corner >= 0).all()
        assert (corner <= query).all()
        np.testing.assert_allclose(corner, corner.round(), atol=1e-6)


def test_local_branch_never_looks_beyond_its_patch(model, image):
    whole = AttentionExplorer(model, image).pick((50, 70), source="local.layer1.0")[0]
    steps = np.linalg.norm(whole.geometry.affine[:-1, :-1], axis=0)
    assert np.array(whole.data.shape) @ np.diag(steps) == pytest.approx([WINDOW / 4, WINDOW / 4])


def test_image_smaller_than_the_window_gets_maps_of_its_own_size(model, rng):
    explorer = AttentionExplorer(model, rng.random((20, 33)))
    assert explorer.overview("global.layer1.0").data.shape == (20, 33)
    whole = explorer.pick((19, 32), source="global.layer1.0")[0]
    assert whole.data.shape == (10, 17)


def test_overview_of_even_attention_is_one_everywhere(make_model, image):
    model = make_model("medt", window=WINDOW)
    for name, parameter in model.net.named_parameters():
        if "qkv" in name or "table" in name or "norm.bias" in name:
            torch.nn.init.zeros_(parameter)
    maps = attention_maps(model, image)
    assert [found.source for found in maps] == list(AttentionExplorer(model, image).sources())
    for found in maps:
        np.testing.assert_allclose(found.data, 1, atol=1e-4)
        assert found.data.shape == (100, 140)


def test_overview_counts_what_full_attention_says(model, rng):
    image = rng.random((WINDOW, WINDOW, 3), dtype=np.float32)
    explorer = AttentionExplorer(model, image)
    found = explorer.overview("local.layer1.0", head=2).data
    with torch.inference_mode(), capture(model.net, ("local.layer1.0.height", "local.layer1.0.width")) as captured:
        model.net(torch.from_numpy(explorer.window_input(0))[None])
    patch = 6  # second row, third column of the 4 x 4 grid
    height, width = (captured[f"local.layer1.0.{axis}"][0].full(patch)[2] for axis in ("height", "width"))
    expected = torch.zeros(8, 8)
    for y0 in range(8):
        for x0 in range(8):
            expected += torch.outer(torch.ones(8), width[y0, x0]) * height[:, y0].T
    tile = found[16:32, 32:48]
    np.testing.assert_allclose(tile[::2, ::2], expected.numpy(), rtol=1e-4)


def test_memory_stays_within_its_budget_and_answers_stay_the_same(model, image):
    free, tight = AttentionExplorer(model, image), AttentionExplorer(model, image, memory_mb=0.01)
    for query in [(0, 0), (99, 139), (0, 139), (0, 0)]:
        a = free.pick(query, source="global.layer1.0")[0]
        b = tight.pick(query, source="global.layer1.0")[0]
        np.testing.assert_array_equal(a.data, b.data)
    assert tight._kept.windows == 1
    assert free._kept.windows == 3


def test_windows_that_are_kept_need_no_pass_for_a_map_of_the_whole_image(model, image, monkeypatch):
    expected = AttentionExplorer(model, image).overviews()
    explorer, passed, capture_of = AttentionExplorer(model, image), [], Scene.capture

    def counting(scene, jobs, names=None):
        passed.extend(jobs)
        return capture_of(scene, jobs, names)

    monkeypatch.setattr(Scene, "capture", counting)
    explorer.pick((50, 70), source="global.layer1.0")
    one_kept = explorer.overviews()
    assert len(passed) == explorer.windows, "the window of the point was passed for the point alone"
    explorer.warm()
    passed.clear()
    for found in (one_kept, explorer.overviews()):
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours.data, theirs.data, rtol=1e-4, atol=1e-6, err_msg=ours.source)
    assert not passed, "all windows were kept"


def test_point_outside_is_refused(model, image):
    """The point (100, 3) lies outside the image of 100 x 140 pixels."""
    with pytest.raises(BadImage, match=r"outside the image of 100 x 140 pixels"):
        AttentionExplorer(model, image).pick((100, 3), source="global.layer1.0")


def test_unknown_source_lists_the_known_ones(model, image):
    with pytest.raises(BadModel, match=r"has no attention called .layer9.; choose one of global\.layer1\.0"):
        attention_maps(model, image, "layer9")


def test_network_without_attention_is_refused(make_model, image, monkeypatch):
    model = make_model("medt", window=WINDOW)
    object.__setattr__(model, "net", torch.nn.Conv2d(3, 2, 1))
    with pytest.raises(BadModel, match="shows no attention"):
        AttentionExplorer(model, image)


def test_capture_does_not_change_the_network(model, image):
    attention_maps(model, image, "global.layer1.0")
    assert all(module.seen is None for module in model.net.attention_sources().values())
    assert create_net("medt", img_size=64).attention_blocks().keys() == model.net.attention_blocks().keys()


def test_a_model_of_another_spacing_is_asked_in_pixels_of_the_picture(model, rng):
    """Maps lie where the point is in the world, though the network saw another grid."""
    card = model.card.model_copy(update={"spacing": (2.0, 2.0)})
    picture = Volume.from_array(
        rng.integers(0, 255, (150, 170, 3), dtype=np.uint8), geometry=Geometry.from_spacing((1, 1), units="mm")
    )
    explorer = AttentionExplorer(type(model)(card, model.net, model.device), picture)
    source = explorer.sources()[0]
    assert explorer.overview(source).data.shape == (75, 85)
    query = (120, 33)
    _, row, column = explorer.pick(query, source=source)
    cell = np.linalg.norm(row.geometry.affine[:-1, :-1], axis=0)
    assert abs(place(row, (0, 0))[0] - 120) <= cell[0] / 2 + 1
    assert abs(place(column, (0, 0))[1] - 33) <= cell[1] / 2 + 1
    assert row.query == query
    with pytest.raises(BadImage, match="150 x 170"):
        explorer.pick((150, 0), source=source)
