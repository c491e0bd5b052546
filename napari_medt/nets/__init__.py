"""The architectures, pure torch, one file a paper, all behind one registry."""

# ruff: noqa: F401  (each module registers its networks)
from napari_medt.nets import attention_unet as _attention_unet
from napari_medt.nets import fine as _fine
from napari_medt.nets import guided_attention as _guided_attention
from napari_medt.nets import medt as _medt
from napari_medt.nets import monai_nets as _monai_nets
from napari_medt.nets import u_transformer as _u_transformer
from napari_medt.nets import unetr as _unetr
from napari_medt.nets.capture import capture, list_attention_sources
from napari_medt.nets.registry import NetInfo, create_net, list_nets
from napari_medt.nets.states import AttentionSource

__all__ = ["AttentionSource", "NetInfo", "capture", "create_net", "list_attention_sources", "list_nets"]
