"""The same network with some of its modules computed in another way."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from torch import nn


def swapped(net: nn.Module, forms: Mapping[type[nn.Module], type[nn.Module]]) -> nn.Module:
    """A copy of a network, or of one of its modules, in which every module of a class in `forms` is of the class given for it."""
    net = copy.deepcopy(net)
    for module in list(net.modules()):
        for ours, plain in forms.items():
            if isinstance(module, ours):
                module.__class__ = plain
    return net
