"""The architectures, pure torch, one file a paper, all behind one registry."""

from napari_medt.nets import medt as _medt  # noqa: F401  (registers its networks)
from napari_medt.nets.capture import capture, list_attention_sources
from napari_medt.nets.registry import NetInfo, create_net, list_nets
from napari_medt.nets.states import AttentionSource

__all__ = ["AttentionSource", "NetInfo", "capture", "create_net", "list_attention_sources", "list_nets"]
