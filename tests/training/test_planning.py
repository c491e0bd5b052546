"""Plans: spacing, orientation, window, batch, intensities, from what a data set is like."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_medt.core import BadModel, BadTrainingData
from napari_medt.nets import create_net, list_nets
from napari_medt.training.facts import CaseFacts
from napari_medt.training.fingerprint import ClassSize, Fingerprint, Values
from napari_medt.training.net_cost import step_cost
from napari_medt.training.planning import Plan, plan
from napari_medt.zoo.card import ModelCard


def case(shape=(30, 60, 60), spacing=(3.0, 1.0, 1.0), *, turn=None, frame="patient", units="mm", **more):
    affine = np.diag([*spacing, 1.0])
    if turn:  # axes in another order
        affine[:-1, :-1] = affine[:-1, :-1][:, turn]
        shape = tuple(shape[axis] for axis in turn)
    values = {0: int(np.prod(shape)) - 2000, 1: 2000}
    return CaseFacts(
        name="c",
        shape=shape,
        affine=tuple(map(tuple, affine.tolist())),
        units=units,
        frame=frame,
        channels=("grey",),
        ranges=((0.0, 900.0),),
        **{"body": shape, "values": values} | more,
    )


def data(*cases, kind="mr", channels=("grey",), classes=None, **more):
    named = classes or {0: "background", 1: "liver"}
    sizes = {value: ClassSize(name=name, cases=1, voxels=9, share=0.1) for value, name in named.items()}
    cases = cases or (case(),) * 5
    dims = len(cases[0].shape)
    return Fingerprint(name="set", kind=kind, dims=dims, channels=channels, classes=sizes, cases=cases, **more)


def flat(shape=(200, 300), **more):
    return case(shape, (1.0, 1.0), frame="image", units="px", **more)


def test_median_spacing_and_axial_slices():
    made = plan(data(case(), case(), case(spacing=(3.5, 1.2, 1.2))), "unet")
    assert (made.spacing, made.orientation) == ((3.0, 1.0, 1.0), "SPL")
    assert made.window == (32, 64, 64)
    assert made.field_of_view_mm == (90, 60, 60)


def test_axes_in_another_order_are_turned_first():
    made = plan(data(case(), case(turn=(2, 0, 1)), case(turn=(1, 2, 0))), "unet")
    assert (made.spacing, made.window) == ((3.0, 1.0, 1.0), (32, 64, 64))


def test_the_coarse_axis_comes_first():
    made = plan(data(*[case((60, 60, 20), (1.0, 1.0, 4.0))] * 3), "unet")
    assert (made.orientation, made.spacing, made.window) == ("LSP", (4.0, 1.0, 1.0), (32, 64, 64))


def test_very_coarse_slices_take_the_tenth_percentile():
    cases = [case((20, 200, 200), (thick, 1.0, 1.0)) for thick in (2.0, 4.0, 5.0, 5.0, 5.0, 6.0)]
    made = plan(data(*cases), "unet", memory_gb=4)
    assert made.spacing == (3.0, 1.0, 1.0)
    assert "along the coarse axis the 10th percentile" in made.notes[0]


def test_micrometres_become_millimetres_and_pixels_stay():
    fine = case((100, 120), (0.5, 0.5), frame="image", units="um")
    assert plan(data(fine, kind="microscopy"), "unet").spacing == (0.0005, 0.0005)
    assert plan(data(flat(), kind="microscopy"), "unet").spacing is None
    mixed = plan(data(fine, flat(), kind="microscopy"), "unet")
    assert mixed.spacing is None
    assert mixed.notes[0] == "Some images do not say how far apart their samples are, so all are taken as they come."


def test_scans_that_do_not_say_how_they_lie():
    made = plan(data(case(), case(frame="image")), "unet")
    assert made.orientation == ""
    assert "how the patient lies" in made.notes[0]


def test_a_2d_network_learns_slices_of_scans():
    made = plan(data(*[case((60, 60, 20), (1.0, 1.5, 4.0))] * 3), "axial-unet")
    assert (made.orientation, made.spacing) == ("LSP", (1.0, 1.5))
    assert made.window == (64, 64)
    assert made.net_options["img_size"] == (64, 64)


def test_a_3d_network_refuses_pictures():
    with pytest.raises(BadTrainingData, match="FINE takes scans, but set holds 2D images"):
        plan(data(flat()), "fine")


def test_unknown_network():
    with pytest.raises(BadModel, match="did you mean 'unet'"):
        plan(data(), "unett")


def test_memory_and_work_limit_window_and_batch():
    whole = data(*[case((60, 150, 150))] * 40)
    small, large = plan(whole, "unet", memory_gb=0.3), plan(whole, "unet", memory_gb=1.2)
    assert small.memory_gb <= 0.3
    assert large.memory_gb <= 1.2
    assert np.prod(small.window) < np.prod(large.window)
    assert all(edge % 16 == 0 for edge in small.window)
    assert "Windows of" in small.notes[-1]
    assert small.window[1] == pytest.approx(small.window[2], abs=16)
    quick = plan(whole, "unet", memory_gb=1.2, step_gflop=20)
    assert quick.step_gflop <= 20
    assert np.prod(quick.window) < np.prod(large.window)
    with pytest.raises(BadTrainingData, match="beyond the limits; choose the preset small"):
        plan(whole, "unet", memory_gb=0.005)


def test_batches_grow_with_the_data():
    few, many = (plan(data(*[flat((64, 64))] * count, kind="microscopy"), "unet") for count in (10, 2000))
    assert (few.batch, many.batch) == (2, 32)


def test_intensities_by_kind():
    values = (Values(low=-125.4, median=15, high=1573.2, mean=200, deviation=400),)
    made = plan(data(kind="ct", values=values), "unet")
    assert (made.intensity.kind, made.intensity.low, made.intensity.high) == ("clip", -126, 1574)
    assert (made.augmentation, made.modality) == ("ct", "CT")
    four = plan(data(channels=("T1", "T2", "FLAIR", "T1C")), "unet")
    assert (four.intensity.kind, four.intensity.per_channel) == ("zscore", True)
    assert four.channels == ("T1", "T2", "FLAIR", "T1C")
    assert four.net_options["in_channels"] == 4
    colour = plan(data(flat(), kind="fundus", channels=("red", "green", "blue")), "unet")
    assert (colour.intensity.kind, colour.channels, colour.augmentation) == ("percentile", "rgb", "fundus")
    assert "so it is treated like MR" in plan(data(kind=""), "unet").notes[1]


def test_the_body_alone_where_much_is_empty():
    roomy = data(*[case((40, 160, 160), body=(40, 60, 60))] * 3)
    made = plan(roomy, "unet")
    assert (made.crop, made.window) == ("foreground", (48, 64, 64))
    assert plan(data(), "unet").crop == "none"


def test_classes_that_do_not_number_themselves():
    gap = plan(data(classes={0: "background", 1: "core", 4: "rim"}), "unet")
    assert (gap.classes, gap.values) == (("background", "core", "rim"), {"rim": (4,)})
    assert plan(data(rule="objects"), "unet").values == {"liver": "any"}
    regions = {"whole": (1, 2), "core": (2,)}
    nested = plan(data(regions=regions), "unet")
    assert (nested.classes, nested.values) == (("background", "whole", "core"), regions)


@pytest.mark.parametrize(("voxels", "share"), [(20_000, 0.33), (2000, 0.5), (50, 0.67)])
def test_small_structures_are_looked_for(voxels, share):
    made = plan(data(case(values={0: 108_000 - voxels, 1: voxels})), "unet")
    assert made.foreground_share == share


QUICK = {"unet", "unetr", "glam"}


@pytest.mark.parametrize(
    "info",
    [pytest.param(i, id=i.name, marks=() if i.name in QUICK else pytest.mark.slow) for i in list_nets()],
)
def test_every_network_runs_as_planned(info):
    scan = 2 not in info.spatial_dims
    made = plan(data(*[case((20, 40, 40)) if scan else flat((50, 70))] * 4), info.name)
    net = create_net(made.architecture, **made.net_options)
    assert all(edge % info.multiple == 0 for edge in made.window)
    with torch.no_grad():
        logits = net.eval()(torch.zeros(1, 1, *made.window))
    assert logits.shape == (1, 2, *made.window)


def test_a_plan_is_most_of_a_card():
    made = plan(data(), "unet")
    same = set(ModelCard.model_fields) & set(Plan.model_fields) - {"notes"}
    entries = {name: getattr(made, name) for name in same}
    assert {"architecture", "window", "spacing", "orientation", "intensity", "channels", "classes"} <= same
    card = ModelCard(name="x", title="x", spatial_dims=len(made.window), **entries)
    assert card.window == made.window
    text = made.model_dump_json()
    assert Plan.model_validate_json(text).model_dump_json() == text


def test_what_is_counted_is_what_is_kept():
    """The estimate against the tensors that a real step keeps."""
    options = {"in_channels": 1, "num_classes": 2, "spatial_dims": 2, "channels": (16, 32, 64, 128)}
    net = create_net("attention-unet", **options).train()
    own = {p.data_ptr() for p in net.parameters()}
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        net(torch.zeros(2, 1, 64, 96))
    real = sum(storage.nbytes() for pointer, storage in kept.items() if pointer not in own)
    cost = step_cost("attention-unet", options, (64, 96))
    assert cost.each * 2 / 1.5 == pytest.approx(real, rel=0.03)
    assert cost.fixed == 20 * sum(p.numel() for p in net.parameters())


def test_looking_at_a_cost_draws_no_random_numbers():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    step_cost("guided-attention", {"in_channels": 3, "num_classes": 2}, (64, 64))
    assert torch.equal(torch.rand(3), expected)
