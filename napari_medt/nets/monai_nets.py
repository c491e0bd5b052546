"""Baselines to compare with, built by MONAI: U-Net, V-Net, Swin UNETR and SegResNet behind our interface.

MONAI is imported when the first of them is built, never before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_medt.core import BadModel
from napari_medt.nets.layers import Axes, Norm, Strides, crop, level_strides, pad_to_multiple, per_axis, total_stride
from napari_medt.nets.registry import register

INSTALL = "install the baselines: pip install 'napari-medt[baselines]'"
NO_ATTENTION = "none"


class MonaiNet(nn.Module):
    """A network of MONAI that takes any size.

    Parameters
    ----------
    net
        The network, kept under its own keys as `net`.
    in_channels, num_classes, spatial_dims
        Channels of the image; classes, background included; 2 or 3.
    multiple
        What the network needs its input to be a multiple of.
    net_channels
        Channels the network takes, where it cannot take `in_channels`; the others are zero.
    """

    def __init__(
        self,
        net: nn.Module,
        in_channels: int,
        num_classes: int,
        spatial_dims: int,
        *,
        multiple: int | Axes,
        net_channels: int | None = None,
    ) -> None:
        super().__init__()
        self.net = net
        self.in_channels, self.num_classes, self.spatial_dims = in_channels, num_classes, spatial_dims
        self.multiple = multiple
        self.empty_channels = (net_channels or in_channels) - in_channels

    def forward(self, x: Tensor) -> Tensor:
        """`(n, in_channels, *size)` to logits `(n, num_classes, *size)`."""
        size = x.shape[2:]
        x = pad_to_multiple(x, self.multiple)
        multiples = per_axis(self.multiple, len(size))
        if tuple(x.shape[2:]) == multiples:  # one voxel would be left at the bottom, which has no statistics
            x = F.pad(x, (0, multiples[-1]) + (0, 0) * (len(size) - 1), mode="replicate")
        if self.empty_channels:
            x = torch.cat((x, x.new_zeros(x.shape[0], self.empty_channels, *x.shape[2:])), 1)
        return crop(self.net(x), size)


def _monai(name: str, spatial_dims: int) -> Callable[..., nn.Module]:
    """A network class of MONAI.

    Raises
    ------
    BadModel
        If MONAI, or a package that it needs for this network, is not installed.
    """
    if spatial_dims not in (2, 3):
        raise ValueError(f"spatial_dims is 2 or 3, not {spatial_dims}")
    try:
        from monai.networks import nets
        from monai.utils.module import optional_import
    except ImportError as error:
        raise BadModel(f"{name} is built by MONAI, which is not installed", remedy=INSTALL) from error
    if name == "SwinUNETR" and not optional_import("einops")[1]:
        raise BadModel("SwinUNETR needs the package einops, which is not installed", remedy=INSTALL)
    network: Callable[..., nn.Module] = getattr(nets, name)
    return network


@register(
    "unet",
    title="U-Net",
    spatial_dims=(2, 3),
    multiple=16,
    paper="Ronneberger et al., U-Net: Convolutional Networks for Biomedical Image Segmentation, MICCAI 2015",
    attention=NO_ATTENTION,
    small={"channels": (16, 32, 64, 128)},
    published={"spatial_dims": 3, "in_channels": 4, "num_classes": 3},
    extra="baselines",
    may_be_zero=("num_res_units",),
)
def unet(
    in_channels: int = 1,
    num_classes: int = 2,
    spatial_dims: int = 2,
    channels: Sequence[int] = (16, 32, 64, 128, 256),
    strides: Strides = None,
    num_res_units: int = 2,
    norm: Norm = "instance",
) -> MonaiNet:
    """U-Net with strided convolutions and residual units: 1.6 million parameters in 2D and 4.8 in 3D at the defaults."""
    steps = level_strides(strides, len(channels) - 1, spatial_dims)
    net = _monai("UNet", spatial_dims)(
        spatial_dims, in_channels, num_classes, tuple(channels), steps, num_res_units=num_res_units, norm=norm
    )
    return MonaiNet(net, in_channels, num_classes, spatial_dims, multiple=total_stride(steps))


@register(
    "vnet",
    title="V-Net",
    spatial_dims=(2, 3),
    multiple=16,
    paper="Milletari et al., V-Net: Fully Convolutional Neural Networks for Volumetric Medical Image Segmentation, 3DV 2016",
    attention=NO_ATTENTION,
    extra="baselines",
)
def vnet(in_channels: int = 1, num_classes: int = 2, spatial_dims: int = 3) -> MonaiNet:
    """V-Net, of one width only: 45.6 million parameters in 3D, 9.4 million in 2D."""
    taken = next(c for c in (1, 2, 4, 8, 16) if c >= in_channels) if in_channels <= 16 else in_channels
    net = _monai("VNet", spatial_dims)(spatial_dims, taken, num_classes)
    if spatial_dims == 2:  # MONAI's `dropout_dim` does not reach the layers, which would leave out whole images
        layers = [(block, key, layer) for block in net.children() for key, layer in block.named_children()]
        for block, key, layer in layers:
            if isinstance(layer, nn.Dropout3d):
                setattr(block, key, nn.Dropout2d(layer.p))
    return MonaiNet(net, in_channels, num_classes, spatial_dims, multiple=16, net_channels=taken)


@register(
    "swin-unetr",
    title="Swin UNETR",
    spatial_dims=(2, 3),
    multiple=32,
    paper="Hatamizadeh et al., Swin UNETR: Swin Transformers for Semantic Segmentation of Brain Tumors, BrainLes 2021",
    attention="attends in windows; its maps are not shown",
    small={"width": 12},
    published={"width": 48, "in_channels": 1, "num_classes": 14},
    extra="baselines",
)
def swin_unetr(in_channels: int = 1, num_classes: int = 2, spatial_dims: int = 3, width: int = 24) -> MonaiNet:
    """Swin UNETR: 15.7 million parameters at the defaults; `width` is a multiple of 12."""
    if width % 12:
        raise ValueError(f"width is a multiple of 12, not {width}")
    network = _monai("SwinUNETR", spatial_dims)
    # It reads numbers from tensors while it is built, which a device without data cannot give.
    with torch.device("cpu"):
        net = network(in_channels, num_classes, feature_size=width, spatial_dims=spatial_dims)
    return MonaiNet(net, in_channels, num_classes, spatial_dims, multiple=32)


@register(
    "segresnet",
    title="SegResNet",
    spatial_dims=(2, 3),
    multiple=8,
    paper="Myronenko, 3D MRI brain tumor segmentation using autoencoder regularization, BrainLes 2018",
    attention=NO_ATTENTION,
    small={"width": 8},
    published={"width": 32, "in_channels": 4, "num_classes": 3},
    extra="baselines",
)
def segresnet(in_channels: int = 1, num_classes: int = 2, spatial_dims: int = 3, width: int = 16) -> MonaiNet:
    """SegResNet without the autoencoder: 4.7 million parameters at the defaults; `width` is a multiple of 8."""
    if width % 8:
        raise ValueError(f"width is a multiple of 8, not {width}")
    net = _monai("SegResNet", spatial_dims)(spatial_dims, width, in_channels, num_classes)
    return MonaiNet(net, in_channels, num_classes, spatial_dims, multiple=8)
