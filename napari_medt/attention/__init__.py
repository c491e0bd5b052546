"""From a forward pass to named attention maps that lie over the image, and whether they deserve belief."""

from napari_medt.attention.explorer import AttentionExplorer, attention_maps
from napari_medt.attention.faithfulness import Faithfulness, check_faithfulness

__all__ = ["AttentionExplorer", "Faithfulness", "attention_maps", "check_faithfulness"]
