"""Every word is in one table, and every control says what it does."""

from __future__ import annotations

from math import inf

import pytest
from qtpy.QtWidgets import QAbstractButton, QAbstractSpinBox, QComboBox, QWidget

from napari_medt.training.gate import Change
from napari_medt.widgets import texts
from napari_medt.widgets.lessons import LearnAhead
from napari_medt.widgets.tools import COMMON, MORE, TOOLS


def test_every_control_has_a_tooltip(dock):
    controls = [
        widget
        for kind in (QAbstractButton, QComboBox, QAbstractSpinBox)
        for widget in dock.findChildren(kind)
        if not any(isinstance(parent, (QComboBox, QAbstractSpinBox)) for parent in _parents(widget))
        and "pyqtgraph" not in type(widget).__module__
    ]
    assert len(controls) > 20
    without = [f"{type(control).__name__} {control.objectName()!r}" for control in controls if not control.toolTip()]
    assert without == []


def test_every_tool_and_what_it_asks_has_words(dock):
    options = [option for tool in TOOLS.values() for option in tool.options]
    assert set(texts.TOOL_NAMES) == set(TOOLS)
    assert {option.name for option in options} == set(texts.TOOL_OPTIONS)
    assert {choice for option in options for choice in option.choices} == set(texts.TOOL_CHOICES)
    assert {tool.clicks for tool in TOOLS.values()} - {""} == set(texts.TOOL_CLICKS)
    listed = {action.objectName() for action in dock.correct_step.toolbox.more_button.menu().actions()}
    assert set(TOOLS) <= listed | set(COMMON)
    assert set(texts.TOOL_GROUPS) == set(MORE)


def _parents(widget: QWidget) -> list[QWidget]:
    parents = []
    while (widget := widget.parentWidget()) is not None:
        parents.append(widget)
    return parents


def test_every_tooltip_is_used_and_is_a_sentence(dock):
    used = {widget.objectName() for widget in dock.findChildren(QWidget)} | {
        "cancel",
        "cancel_learning",
        "mend",
        "head_table",
    }
    used |= set(TOOLS) | {f"tool_{option.name}" for tool in TOOLS.values() for option in tool.options}
    assert set(texts.TOOLTIPS) <= used
    assert all(tip.endswith(".") and tip[0].isupper() for tip in texts.TOOLTIPS.values())


@pytest.mark.parametrize(
    ("shape", "options", "words"),
    [
        ((256, 256), {"dtype": "uint8", "colour": True}, "256 × 256 pixels, colour, 8-bit"),
        ((20, 30), {"dtype": "uint16", "colour": False}, "30 × 20 pixels, grey, 16-bit"),
        ((5, 20, 30), {"dtype": "float32", "colour": False}, "30 × 20 × 5, 3D, grey, decimal numbers"),
    ],
)
def test_image_words(shape, options, words):
    assert texts.image_words(shape, spacing=(1,) * len(shape), units="px", **options) == words


def test_image_words_tell_the_pixel_size():
    words = texts.image_words((4, 4), dtype="uint8", colour=False, spacing=(0.5, 0.25), units="um")
    assert words.endswith("0.25 × 0.5 µm a pixel")
    assert texts.image_words((4, 4), dtype="uint8", colour=False, spacing=(0.5, 0.5), units="mm").endswith(
        "0.5 mm a pixel"
    )


def test_names_of_attention_blocks():
    assert texts.source_name("global.layer1.0") == "Global, stage 1, block 1"
    assert texts.source_name("local.layer3.2") == "Local, stage 3, block 3"
    assert texts.source_name("layer2.1") == "Stage 2, block 2"
    assert texts.source_name("level3", "gate") == "Level 3, gate"
    assert texts.source_name("cross.2", "cross") == "Level 2, cross-attention"
    assert texts.source_name("self", "token") == "Deepest level, self-attention"
    assert texts.source_name("block5", "token") == "Block 5, self-attention"
    assert texts.source_name("rollout", "rollout") == "All blocks together"
    assert texts.source_name("encoder.2.block1.composed", "composed") == "Encoder, stage 3, block 2, all hops together"
    assert texts.source_name("decoder.0.block0.token", "token") == "Decoder, stage 1, block 1, between windows"
    assert texts.source_name("step2.scale1.position", "position") == "Step 2, scale 1, positions"
    assert texts.head_name(None) == "Mean of all heads"
    assert texts.head_name(None, heads=1) == "There is only one"
    assert texts.head_name(0) == "Head 1"


def test_names_of_maps():
    assert texts.map_name("block5", "token", 2, 12) == "Attention: Block 5, head 3"
    assert texts.map_name("rollout", "rollout", None, 1) == "Attention: All blocks together"
    name = texts.map_name("encoder.2.block1.composed", "by way of tokens", None, 3)
    assert name == "Attention: Encoder, stage 3, block 2, all hops together, by way of tokens, mean of all heads"
    assert texts.map_name("level2", "gate", None, 1) == "Attention: Level 2, gate"


def test_figures_of_heads_have_units():
    assert texts.figure(None, "mm") == "–"
    assert texts.figure(0.0408, "mm") == "40.8 µm"
    assert texts.figure(12.3456, "px") == "12.3 px"
    assert texts.figure(0.8) == "0.80"


def test_times_do_not_flicker():
    assert texts.time_left(0.4) == "nearly done"
    assert texts.time_left(7.3) == "about 7 s left"
    assert {texts.time_left(t) for t in (38.2, 39.4, 41.9)} == {"about 40 s left"}
    assert texts.time_left(600) == "about 10 min left"


def test_a_found_mask_is_offered_in_one_sentence():
    assert texts.found_mask("14:02", 12) == "A mask from 14:02 with 12 edits was found."
    assert texts.found_mask("14:02", 1) == "A mask from 14:02 with 1 edit was found."


def test_what_a_run_takes_in_words():
    assert texts.ahead(1, 0.2, None) == "1 window, about 1 MB of memory"
    assert texts.ahead(61, 3100, 40) == "61 windows, about 3.1 GB of memory, about 40 s"


def test_doubtful_places_have_units():
    assert texts.doubtful_place(1, 1500, "mm", 3, 0.77, "cord") == "1.  cord, 1.5 ml, unsure by 77 %"
    assert texts.doubtful_place(2, 38, "mm", 3, 0.5, "") == "2.  background, 38 mm³, unsure by 50 %"
    assert texts.doubtful_place(3, 12, "um", 2, 0.5, "cell") == "3.  cell, 12 µm², unsure by 50 %"
    assert texts.doubtful(0) == "Doubtful places: none"


def test_sizes_have_units():
    assert texts.extent(26_000, (1, 1, 1), "mm") == "26 ml"
    assert texts.extent(12, (1, 1, 1), "mm") == "12 mm³"
    assert texts.extent(8, (0.5, 0.25), "um") == "1 µm²"
    assert texts.extent(1234, (1, 1), "px") == "1\u2009234 px"
    assert texts.extent(0, (1, 1), "px") == "–"


def test_structures_are_named_in_what_tools_say():
    assert texts.with_names("Smoothing would leave nothing of label 2", {2: "liver <left>"}).endswith(
        "nothing of liver &lt;left&gt;"
    )


def test_what_learning_takes_in_words():
    assert texts.learn_ahead(1, 2, None) == "1 corrected case, about 2 min"
    known = LearnAhead(3, 1, 2, 0.5, 310)
    said = texts.learn_ahead(4, 2, known)
    assert said == "3 corrected cases, 1 held out, about 2 min, 310 MB of memory, at most 240 steps"
    assert "none held out" in texts.learn_ahead(1, 1, LearnAhead(1, 0, 0, 0.5, 1500))


@pytest.mark.parametrize(
    ("change", "words", "role"),
    [
        (Change("cord", "dice", 0.5, 0.75, 0.2, 0.3, 4), ("Dice", "0.50", "0.75", "▲ +0.20 … +0.30"), "good"),
        (Change("cord", "hd95", 2.0, inf, None, None, 1), ("HD95, mm", "2", "∞", "▼"), "bad"),
        (
            Change("cord", "volume_difference", 3.0, 1.5, -2, -1, 2),
            ("Volume error, ml", "3", "1.5", "▲ −2 … −1"),
            "good",
        ),
        (Change("cord", "dice", None, 0.5, None, None, 1), ("Dice", "–", "0.50", "·"), ""),
    ],
)
def test_changes_have_units_and_a_sign_beside_the_colour(change, words, role):
    assert texts.change_words(change, "mm", 3) == words
    assert texts.change_role(change) == role


def test_large_and_small_figures_are_written_out():
    change = Change("cell", "volume_difference", 1020.0, 99.96, -3210.4, -1e-9, 2)
    assert texts.change_words(change, "px", 2) == ("Area error, px²", "1020", "100", "▲ −3210 … +0")


def test_areas_are_not_called_volumes():
    change = Change("cell", "volume_difference", 3.0, 3.0, None, None, 1)
    assert texts.change_words(change, "um", 2)[0] == "Area error, µm²"
