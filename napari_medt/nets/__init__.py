"""The architectures, pure torch, one file a paper, all behind one registry."""

from napari_medt.nets import medt as _medt  # noqa: F401  (registers its networks)
from napari_medt.nets.registry import NetInfo, create_net, list_nets

__all__ = ["NetInfo", "create_net", "list_nets"]
