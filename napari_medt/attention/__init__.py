"""From a forward pass to named attention maps that lie over the image."""

from napari_medt.attention.explorer import AttentionExplorer, attention_maps

__all__ = ["AttentionExplorer", "attention_maps"]
