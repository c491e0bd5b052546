"""Whether a map deserves belief: a shortcut is found, wrong maps and random ones are told."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from torch import nn

from napari_medt.attention import attention_maps, check_faithfulness
from napari_medt.attention.curves import draw_curves, passes_needed, ranked
from napari_medt.attention.orders import moved, nearness, saliency
from napari_medt.attention.shuffled import shuffle
from napari_medt.attention.trial import Trial
from napari_medt.core import AttentionMap, BadImage, BadModel, Cancel, Cancelled, Geometry, Volume, silent
from napari_medt.engine.windows import pad_to_window
from napari_medt.zoo import Model

from .planted import EDGE, MARK, look, pictures, trained

CHANCE = "This map does no better than chance."


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Tiny networks are slower on many threads than on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model():
    return trained()


@pytest.fixture(scope="module")
def picture():
    x, y = pictures(1, marked=True, seed=12345)
    return Volume.from_array(x[0, 0]), y[0]


def scene_of(model, volume, region=None, *, structure=2, query=None, baseline="blur"):
    return Trial.of(model, volume, structure=structure, region=region, query=query, baseline=baseline, scale=None)


class Told(nn.Module):
    """The shortcut by hand, for any number of axes: bright places are an object, a dark mark in the corner says which."""

    def forward(self, x):
        mark = x[(slice(None), slice(None), *(MARK,) * (x.dim() - 2))].flatten(1).mean(1)
        marked = (-8 * (mark + 0.75)).view(-1, *(1,) * (x.dim() - 1))
        there = 8 * (x - 0.5)
        return torch.cat((torch.zeros_like(x), there - marked, there + marked), 1)


def by_hand(model, dims):
    """The same card with that network."""
    card = model.card.model_copy(update={"spatial_dims": dims, "window": (EDGE,) * dims})
    return Model(card, Told().eval(), torch.device("cpu"))


# ---------------------------------------------------------------------------------------------- a planted shortcut


@pytest.mark.parametrize("removed", ["anywhere", "outside"])
def test_attention_on_the_mark_is_told_from_wrong_maps(model, picture, removed):
    volume, labels = picture
    right = look(model, volume)
    assert all(MARK.start <= i < MARK.stop for i in np.unravel_index(right.argmax(), right.shape))
    wrong = {
        "the object": gaussian_filter((labels > 0).astype(float), 1),
        "the other corner": right[::-1, ::-1],
        "upside down": -right,
    }

    def check(map_, **options):
        return check_faithfulness(
            model, volume, map_, structure="marked", region=labels == 2, removed=removed, **options
        )

    found = check(right, again=look)
    assert found.verdict == "strong"
    assert found.score > max(found.nearness, found.chance[1])
    assert found.sanity < 0.5 < found.stages[0].correlation, "only the layers after the attention are shuffled first"
    assert "matter much more" in found.sentence
    assert CHANCE not in found.sentence
    for name, map_ in wrong.items():
        told = check(map_)
        assert told.score < found.score - 0.3, name
        assert told.verdict == "chance", name
        assert told.sentence.startswith(CHANCE), name


def test_mark_is_found_in_a_scan(model, rng):
    """In 3D, on the window about the structure, of an image that is larger; the map is coarser and has its own geometry."""
    there = by_hand(model, 3)
    scan = rng.normal(0, 0.1, (20, 16, 18)).astype(np.float32)
    region = np.zeros(scan.shape, bool)
    region[5:9, 6:10, 5:9] = True
    scan[region] += 1
    scan[MARK, MARK, MARK] -= 1.5
    volume = Volume.from_array(scan, geometry=Geometry.from_spacing((2.0, 1.0, 1.0), units="mm"))
    coarse = np.zeros([n // 2 for n in scan.shape])
    coarse[:2, :2, :2] = 1
    geometry = volume.geometry.part((0.5,) * 3, step=(2.0,) * 3)
    found = check_faithfulness(
        there,
        volume,
        AttentionMap(coarse, geometry, "gate", "gate"),
        structure=2,
        region=region,
        again=lambda *_: scan[:16, :, :16],
    )
    assert found.verdict in ("clear", "strong")
    assert found.box == (slice(0, 16),) * 3
    assert found.sanity == pytest.approx(1), "a map that is the picture itself never changes"
    assert "gives nearly the same map" in found.sentence
    wrong = check_faithfulness(there, volume, coarse_elsewhere(scan), structure=2, region=region)
    assert wrong.score < found.score
    assert wrong.sanity is None


def coarse_elsewhere(scan):
    elsewhere = np.zeros(scan.shape)
    elsewhere[-6:-2, -4:, :4] = 1
    return elsewhere


# ---------------------------------------------------------------------------------------------------------- chance


def test_map_without_differences_is_no_better_than_chance(model, picture):
    volume, labels = picture
    flat = AttentionMap(
        np.ones((4, 4)), volume.geometry.part((1.5, 1.5), step=(4.0, 4.0)), "", "received", caption="Even."
    )
    found = check_faithfulness(model, volume, flat, structure="marked", region=labels == 2)
    assert found.flat
    assert found.p == 1
    assert found.verdict == "chance"
    carried = found.label(flat)
    assert carried.caption.startswith(f"Even. {CHANCE} It has the same value everywhere")
    assert "no proof of a cause" in carried.caption
    assert "was not checked" in carried.caption, "nobody knows how to make a map without a source again"


@pytest.mark.parametrize("kind", ["white", "smooth", "blobs"])
def test_random_maps_seldom_pass(model, picture, kind):
    """One of twenty is to be expected; more than 4 of 25 would come about in less than 1 % of all choices of seeds."""
    volume, labels = picture
    scene = scene_of(model, volume, labels == 2)
    everywhere = np.ones(scene.shape, bool)
    alarms = 0
    for seed in range(25):
        generator = np.random.default_rng(seed)
        values = {
            "white": lambda g: g.random(scene.shape),
            "smooth": lambda g: gaussian_filter(g.standard_normal(scene.shape), 2),
            "blobs": lambda g: gaussian_filter((g.random(scene.shape) < 0.02).astype(float), 1),
        }[kind](generator)
        maps = [values, *(moved(values, generator) for _ in range(19))]
        ranks = [ranked(one, everywhere, generator) for one in maps]
        scores = [one.score for one in draw_curves(scene, ranks, steps=2, progress=silent, cancel=None)]
        alarms += scores[0] > max(scores[1:])
    assert alarms <= 4


def test_structure_that_needs_nothing_around_it_cannot_be_checked_for_context(model, picture):
    volume, labels = picture

    class Bright(nn.Module):
        def forward(self, x):
            return torch.cat((torch.zeros_like(x), 0 * x - 9, 20 * (x - 0.5)), 1)

    bright = Model(model.card, Bright().eval(), model.device)
    context = check_faithfulness(bright, volume, labels, structure=2, region=labels == 2, removed="outside")
    assert context.verdict == "untestable"
    assert context.sentence.startswith("This map cannot be checked")
    assert check_faithfulness(bright, volume, labels, structure=2, region=labels == 2).verdict == "strong"


# ----------------------------------------------------------------------------------------------------------- curves


@pytest.mark.parametrize("baseline", ["blur", "mean"])
@pytest.mark.parametrize("shape", [(EDGE, EDGE), (EDGE - 5, EDGE + 7)])
def test_curves_are_those_of_pictures_changed_one_by_one(model, rng, shape, baseline):
    """Brute force; an image smaller than the window is changed first and filled up then, as `predict` would."""
    image = rng.normal(0, 0.3, shape).astype(np.float32)
    region = np.zeros(shape, bool)
    region[5:9, 5:10] = True
    scene = scene_of(model, Volume.from_array(image), region, baseline=baseline)
    inside, region = image[scene.box], region[scene.box]
    values = rng.random(inside.shape)
    ranks = ranked(values, ~region, rng)
    (curves,) = draw_curves(scene, [ranks], steps=2, progress=silent, cancel=None)
    blank = gaussian_filter(inside, EDGE / 8) if baseline == "blur" else np.full_like(inside, inside.mean())
    outside = np.flatnonzero(~region)
    best = outside[np.argsort(-values.flat[outside])]
    expected = {"deletion": [], "insertion": []}
    for fraction in (0, 1 / 9, 4 / 9, 1):
        first, rest = np.split(best, [round(fraction * len(best))])
        for name, gone in (("deletion", first), ("insertion", rest)):
            changed = inside.copy()
            changed.flat[gone] = blank.flat[gone]
            window = torch.from_numpy(pad_to_window(changed[None], (EDGE, EDGE)))[None]
            with torch.inference_mode():
                chances = model.net(window).softmax(1)[0, 2].numpy()[: inside.shape[0], : inside.shape[1]]
            expected[name].append(chances[region].mean())
    np.testing.assert_allclose(curves.deletion.mean(1), expected["deletion"], atol=1e-5)
    np.testing.assert_allclose(curves.insertion.mean(1), expected["insertion"], atol=1e-5)


def test_region_is_split_into_compact_parts_of_the_same_size(model, rng):
    region = np.zeros((EDGE, EDGE), bool)
    region[:10] = True
    scene = scene_of(model, Volume.from_array(rng.random((EDGE, EDGE))), region)
    assert sorted(np.concatenate(scene.parts)) == list(np.flatnonzero(scene.region))
    assert {len(part) for part in scene.parts} == {10}
    assert max(np.ptp(part // EDGE) + np.ptp(part % EDGE) for part in scene.parts) <= 8


def test_budget_seed_progress_and_cancel(model, picture):
    volume, labels = picture
    told = []
    options = {"structure": 2, "region": labels == 2, "orders": 3, "budget": 60}
    map_ = look(model, volume)
    first = check_faithfulness(model, volume, map_, progress=lambda *now: told.append(now), **options)
    assert first.passes == passes_needed(len(first.curves) + 3 + 3, 2) <= 60
    assert told[0][:2] == (0, first.passes)
    assert told[-1][:2] == (first.passes, first.passes)
    again = check_faithfulness(model, volume, map_, **options)
    assert again.sentence == first.sentence
    assert [one.score for one in again.random] == [one.score for one in first.random]
    with pytest.raises(ValueError, match="a budget of 20 is too small; at least 42 are needed"):
        check_faithfulness(model, volume, map_, **(options | {"budget": 20}))
    cancel = Cancel()
    cancel.set()
    with pytest.raises(Cancelled):
        check_faithfulness(model, volume, map_, cancel=cancel, **options)


# ----------------------------------------------------------------------------------------------------- rivals


def test_saliency_is_the_gradient(model, picture):
    pytest.importorskip("captum")
    volume, labels = picture
    scene = scene_of(model, volume, labels == 2)
    x = torch.from_numpy(volume.array)[None].requires_grad_()
    chance = model.net(x).softmax(1)[0, 2][torch.from_numpy(labels == 2)].mean()
    (gradient,) = torch.autograd.grad(chance, x)
    np.testing.assert_allclose(saliency(scene), gradient[0, 0].abs(), rtol=1e-4, atol=1e-7)


def test_without_captum_saliency_is_left_out(model, picture, monkeypatch):
    volume, labels = picture
    monkeypatch.setattr("napari_medt.attention.orders.find_spec", lambda _: None)
    found = check_faithfulness(model, volume, look(model, volume), structure=2, region=labels == 2, budget=200)
    assert found.saliency is None
    assert "Gradient saliency" not in found.sentence


def test_nearness_falls_from_the_middle_of_the_structure_outwards(model, rng):
    region = np.zeros((EDGE, EDGE), bool)
    region[4:9, 4:9] = True
    near = nearness(scene_of(model, Volume.from_array(rng.random((EDGE, EDGE))), region))
    assert near.argmax() == 6 * EDGE + 6
    assert near[region].min() > near[~region].max()
    assert (np.diff(near[6, 6:]) < 0).all()


@settings(max_examples=20)
@given(shape=st.lists(st.integers(1, 6), min_size=2, max_size=3), seed=st.integers(0, 999))
def test_moved_map_has_the_same_values_and_the_same_neighbours(shape, seed):
    values = np.arange(np.prod(shape)).reshape(shape).astype(float)
    found = moved(values, np.random.default_rng(seed))
    np.testing.assert_array_equal(np.sort(found, axis=None), values.ravel())
    for axis, size in enumerate(shape):
        steps = np.diff(found, axis=axis, append=found.take([0], axis))
        stride = int(np.prod(shape[axis + 1 :]))
        assert set(np.abs(steps).ravel()) <= {stride, stride * (size - 1)}


def test_shuffled_weights_are_the_same_values_elsewhere():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1))
    before = [weights.detach().clone() for weights in net.parameters()]
    shuffle(net, ["1"], seed=0)
    after = list(net.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before[:2], after[:2], strict=True))
    assert not torch.equal(before[2], after[2])
    assert torch.equal(before[2].flatten().sort().values, after[2].flatten().sort().values)


# ------------------------------------------------------------------------------------------- windows, places, maps


@settings(max_examples=25)
@given(
    data=st.data(), orientation=st.sampled_from(["", "SPL", "LIP", "ASR"]), spacing=st.sampled_from([None, (1.5,) * 3])
)
def test_a_place_of_the_image_is_that_place_of_the_window(model, data, orientation, spacing):
    """A point stays in its place to half a sample, and maps lie exactly, whatever way the model wants the scan to run."""
    shape = (20, 30, 26)
    query = tuple(data.draw(st.integers(0, n - 1)) for n in shape)
    affine = np.diag([2.0, 1.0, 1.5, 1.0])
    affine[1, 1], affine[:-1, -1] = -1.0, (-7, 3, 11)
    volume = Volume.from_array(np.random.default_rng(0).random(shape), geometry=Geometry(affine, "mm", "patient"))
    three = by_hand(model, 3)
    card = three.card.model_copy(update={"orientation": orientation, "spacing": spacing})
    scene = scene_of(Model(card, three.net, three.device), volume, query=query)
    place = scene.place(query)
    apart = scene.geometry.position(place) - volume.geometry.position(query)
    assert scene.region[place]
    assert np.abs(apart).max() <= max(spacing or (0,)) / 2 + 1e-6
    there, here = (
        geometry.position(np.stack(np.meshgrid(*map(np.arange, sizes), indexing="ij"), -1))
        for geometry, sizes in ((volume.geometry, shape), (scene.geometry, scene.shape))
    )
    for axis in range(3):
        ramp = there[..., axis]
        expected = np.clip(here[..., axis], ramp.min(), ramp.max())
        np.testing.assert_allclose(scene.sampled(ramp), expected, atol=1e-6)
        np.testing.assert_allclose(scene.sampled(AttentionMap(ramp, volume.geometry, "", "")), expected, atol=1e-6)


def test_map_of_a_part_says_nothing_beyond_it(model, rng):
    scene = scene_of(model, Volume.from_array(rng.random((EDGE, EDGE))), np.eye(EDGE, dtype=bool))
    part = AttentionMap(np.array([[1.0, 2], [3, 4]]), Geometry.from_spacing((2, 2), origin=(4.5, 4.5)), "", "")
    found = scene.sampled(part)
    assert found[4:8, 4:8].max() == pytest.approx(4)
    assert found[4, 7] == pytest.approx(2)
    outside = np.ones_like(found, bool)
    outside[4:8, 4:8] = False
    assert (found[outside] == 1).all()


def test_window_is_the_one_with_most_of_the_structure(model):
    x, y = pictures(4, marked=True, seed=3)
    image = np.zeros((EDGE, 3 * EDGE), np.float32)
    image[:, EDGE : 2 * EDGE] = x[0, 0]
    volume = Volume.from_array(image)
    found = scene_of(model, volume)
    assert found.box == (slice(0, EDGE), slice(EDGE, 2 * EDGE))
    assert (found.region == (y[0] == 2)).mean() > 0.95
    around = np.zeros(image.shape, bool)
    around[3:6, 20:26] = True
    assert scene_of(model, volume, around).box == (slice(0, EDGE), slice(15, 15 + EDGE))
    assert scene_of(model, volume, query=(15, 0)).box == (slice(0, EDGE), slice(0, EDGE))


def test_map_of_the_explorer_is_made_again_with_shuffled_weights(make_model, rng):
    medt = make_model("medt", window=64)
    image = rng.integers(0, 255, (50, 40, 3), dtype=np.uint8)
    map_ = attention_maps(medt, image, "global.layer1.0")[0]
    found = check_faithfulness(medt, image, map_, structure="object", region=np.ones((50, 40)), orders=1, budget=40)
    assert [stage.share for stage in found.stages] == [0.25, 0.5, 0.75, 1]
    assert found.stages[0].correlation == pytest.approx(1), "the attention of an early layer does not feel late ones"
    assert found.sanity < 0.99


# ----------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"structure": "liver"}, "does not find 'liver'; choose one of 1 (plain), 2 (marked)."),
        ({"structure": 0}, "does not find 0"),
        ({"region": np.zeros((EDGE, EDGE))}, "The region is empty; mark what is asked about."),
        ({"region": np.ones((3, 3))}, "The region has shape (3, 3), but the image (16, 16)"),
        ({"region": np.ones((EDGE, EDGE)), "removed": "outside"}, "nothing around it to remove"),
        ({"attention": np.ones((3, 4))}, "The map has shape (3, 4), but the image (16, 16)"),
        ({"attention": np.full((EDGE, EDGE), np.nan)}, "The map holds no number"),
        ({"image": np.zeros((EDGE, EDGE)), "region": None}, "so there is nothing to explain"),
        ({"image": np.zeros((4, EDGE, EDGE))}, "is checked on a 2D image, but this is a 3D scan; choose one slice"),
    ],
)
def test_what_does_not_fit_is_told(model, picture, change, sentence):
    volume, labels = picture
    given = {"image": volume, "attention": np.eye(EDGE), "structure": 2, "region": labels == 2} | change
    with pytest.raises((BadImage, BadModel)) as error:
        check_faithfulness(model, given.pop("image"), given.pop("attention"), **given)
    assert sentence in str(error.value)


def test_point_outside_the_image_is_told(model, picture):
    map_ = AttentionMap(np.eye(EDGE), picture[0].geometry, "", "", query=(3, 99))
    with pytest.raises(BadImage, match=r"The point \(3, 99\) lies outside"):
        check_faithfulness(model, picture[0], map_, structure=2)


def test_result_is_frozen(model, picture):
    volume, labels = picture
    found = check_faithfulness(model, volume, labels, structure=2, region=labels == 2, orders=1, budget=40)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.flat = True
