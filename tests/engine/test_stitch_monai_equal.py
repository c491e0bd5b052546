"""The same blend as MONAI's sliding windows at equal settings, and the same in parts as in the whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_medt.core import Volume
from napari_medt.engine import predict
from napari_medt.engine.stitch import Stitch
from napari_medt.engine.windows import Layout, blend_weights, pad_to_window, pad_with_zeros
from napari_medt.zoo.model import Model

CASES = [
    ((40, 37, 50), (16, 16, 16), 0.5),
    ((17, 20, 50), (16, 24, 8), 0.25),  # smaller than the window along one axis
    ((10, 9, 11), (16, 13, 20), 0.5),  # along all
    ((33, 16, 16), (16, 16, 16), 0.7),
    ((40, 30, 33), (16, 16, 16), 0.0),
    ((30, 41), (16, 16), 0.5),
    ((5, 41), (16, 16), 0.25),
]


class Depends(torch.nn.Module):
    """An answer that depends on where in the window a voxel lies, so that blending matters."""

    def __init__(self, dims, classes=3):
        super().__init__()
        torch.manual_seed(dims)
        self.conv = (torch.nn.Conv2d, torch.nn.Conv3d)[dims - 2](1, classes, 3, padding=1)
        self.ramp = torch.rand(1, classes, *(40,) * dims)

    def forward(self, x):
        return self.conv(x) + self.ramp[(..., *(slice(0, size) for size in x.shape[2:]))]


def blended(image, window, overlap, net, *, blending="smooth", box=None):
    """Values `(3, *shape)` where the box is, NaN elsewhere; no voxel may be given twice."""
    shape = image.shape[1:]
    box = box or tuple(slice(0, size) for size in shape)
    layout = Layout.of(shape, window, overlap=overlap, centred=blending == "monai").touching(box)
    stitch = Stitch(3, layout, box, blending=blending)
    pad = pad_with_zeros if blending == "monai" else pad_to_window
    out = torch.full((3, *shape), torch.nan)
    for where in layout:
        inside = tuple(slice(max(w.start, 0), min(w.stop, size)) for w, size in zip(where, shape, strict=True))
        with torch.inference_mode():
            values = net(torch.from_numpy(pad(image[(slice(None), *inside)], window).copy())[None])[0]
        if finished := stitch.add(where, values):
            part, found = finished
            assert out[(slice(None), *part)].isnan().all()
            out[(slice(None), *part)] = found
    return out


@pytest.mark.parametrize(("shape", "window", "overlap"), CASES)
def test_values_equal_those_of_monai(rng, shape, window, overlap):
    inferers = pytest.importorskip("monai.inferers", reason="needs MONAI, installed with napari-medt[train]")
    image, net = rng.standard_normal((1, *shape), dtype=np.float32), Depends(len(shape))
    with torch.inference_mode():
        expected = inferers.sliding_window_inference(
            torch.from_numpy(image)[None], window, 2, net, overlap=overlap, mode="gaussian", sigma_scale=0.125
        )[0]
    found = blended(image, window, overlap, net, blending="monai")
    assert (found - expected).abs().max() < 1e-5


@pytest.mark.parametrize(("shape", "window", "overlap"), [case for case in CASES if min(np.subtract(*case[:2])) >= 0])
def test_our_own_weights_are_normalised_as_monai_would(rng, shape, window, overlap):
    inferers = pytest.importorskip("monai.inferers", reason="needs MONAI, installed with napari-medt[train]")
    image, net = rng.standard_normal((1, *shape), dtype=np.float32), Depends(len(shape))
    with torch.inference_mode():
        expected = inferers.sliding_window_inference(
            torch.from_numpy(image)[None],
            window,
            2,
            net,
            overlap=overlap,
            roi_weight_map=torch.from_numpy(blend_weights(window)),
        )[0]
    assert (blended(image, window, overlap, net) - expected).abs().max() < 1e-5


@pytest.mark.parametrize("blending", ["smooth", "monai"])
@pytest.mark.parametrize(("shape", "window", "overlap"), CASES)
def test_a_box_is_exactly_its_part_of_the_whole(rng, shape, window, overlap, blending):
    image, net = rng.standard_normal((1, *shape), dtype=np.float32), Depends(len(shape))
    whole = blended(image, window, overlap, net, blending=blending)
    assert not whole.isnan().any()
    for at in (0.0, 0.3, 0.8):
        box = tuple(slice(int(at * size), int(at * size) + max(1, size // 5)) for size in shape)
        part = blended(image, window, overlap, net, blending=blending, box=box)
        assert torch.equal(part[(slice(None), *box)], whole[(slice(None), *box)])
        assert part.isnan().sum() == part.numel() - part[(slice(None), *box)].numel()


def test_only_the_overlap_of_two_rows_of_windows_is_held():
    layout = Layout.of((400, 512, 512), (96, 96, 96), overlap=0.5)
    box = tuple(slice(0, size) for size in layout.shape)
    rows = Stitch(14, layout, box, device="meta").nbytes / (4 * 14 * 512 * 512)
    assert rows < 48 + 22  # half a row of windows, and one line


@pytest.mark.parametrize("shape", [(24, 40, 33), (10, 12, 9)])
def test_prediction_blended_as_by_monai(make_card, rng, shape):
    inferers = pytest.importorskip("monai.inferers", reason="needs MONAI, installed with napari-medt[train]")
    net, window = Depends(3), (16, 16, 16)
    card = make_card(
        classes=("a", "b", "c"),
        net_options={},
        channels="grey",
        spatial_dims=3,
        window=window,
        intensity={"kind": "none"},
    )
    image = rng.standard_normal(shape, dtype=np.float32)
    volume = Volume.from_array(image, rgb=False)
    found = predict(Model(card, net, torch.device("cpu")), volume, probabilities=True, overlap=0.5, blending="monai")
    with torch.inference_mode():
        expected = inferers.sliding_window_inference(
            torch.from_numpy(image)[None, None], window, 1, lambda x: net(x).softmax(1), overlap=0.5, mode="gaussian"
        )[0].numpy()
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-3)  # they are kept as float16
    np.testing.assert_array_equal(found.labels, expected.argmax(0))
