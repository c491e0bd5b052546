"""From a forward pass to named attention maps that lie over the image, and whether they deserve belief."""

from napari_medt.attention.comparing import component, difference, right_and_wrong, wrong_against_right
from napari_medt.attention.explorer import AttentionExplorer, attention_maps
from napari_medt.attention.faithfulness import Faithfulness, check_faithfulness
from napari_medt.attention.sources import Source, list_sources
from napari_medt.core import HeadRow

__all__ = [
    "AttentionExplorer",
    "Faithfulness",
    "HeadRow",
    "Source",
    "attention_maps",
    "check_faithfulness",
    "component",
    "difference",
    "list_sources",
    "right_and_wrong",
    "wrong_against_right",
]
