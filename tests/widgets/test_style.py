"""The dock can be read: enough contrast in both themes, and nothing cut off with a large font."""

from __future__ import annotations

import pytest
from napari.components import ViewerModel
from qtpy.QtWidgets import QLabel, QPushButton

from napari_medt.widgets._compat import look_of
from napari_medt.widgets.style import Palette, blend, contrast, stylesheet


@pytest.fixture(params=["dark", "light"])
def palette(request):
    model = ViewerModel()
    model.theme = request.param
    return Palette(look_of(model))


def test_contrast_as_wcag_defines_it():
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    assert blend("#000000", "#ffffff", 0.5) == "#808080"


@pytest.mark.parametrize(
    ("front", "back", "least"),
    [
        ("text", "card", 7),
        ("muted", "card", 4.5),
        ("muted", "page", 4.5),
        ("text", "control", 4.5),
        ("on_accent", "accent", 4.5),
        ("good", "card", 4.5),
        ("bad", "bad_back", 4.5),
        ("text", "bad_back", 4.5),
        ("text", "offer_back", 4.5),
        ("accent", "page", 2.5),
    ],
)
def test_colours_can_be_told_apart(palette, front, back, least):
    assert contrast(getattr(palette, front), getattr(palette, back)) >= least


def test_sizes_follow_the_font(palette):
    assert f"{palette.look.font_pt}pt" in stylesheet(palette.look)


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_nothing_is_cut_off_at_one_and_a_half_times_the_font(dock, viewer, qtbot, theme, walk):
    from napari.settings import get_settings

    get_settings().appearance.font_size = 14
    viewer.theme = theme
    viewer.window.resize(1280, 720)
    walk.run(dock)
    for step in dock.steps.values():
        step.set_open(True)
    qtbot.wait(200)
    assert dock.width() >= 340
    assert dock.scroll.widget().width() <= dock.scroll.viewport().width()
    for widget in [*dock.findChildren(QPushButton), *dock.findChildren(QLabel)]:
        if widget.isVisible() and type(widget).__name__ != "ElidedLabel" and widget.text():
            needed = widget.fontMetrics().boundingRect(widget.text()).width()
            wraps = isinstance(widget, QLabel) and widget.wordWrap()
            assert wraps or widget.width() >= needed, widget.text()
            assert widget.height() >= widget.fontMetrics().height() - 1, widget.text()
    get_settings().appearance.font_size = 9


def test_only_one_button_is_bright(dock, walk):
    def bright():
        return [made.text() for made in dock.findChildren(QPushButton) if made.property("primary") and made.isVisible()]

    assert bright() == ["Run"]
    walk.run(dock)
    assert bright() == ["Pick a point"]
