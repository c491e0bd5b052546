"""The dock's look, made from the colours and the font size of napari's present theme."""

from __future__ import annotations

from napari_medt.widgets._compat import Look


def blend(colour: str, other: str, share: float) -> str:
    """Mix two `#rrggbb` colours; `share` of the second."""
    pairs = [(int(colour[i : i + 2], 16), int(other[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)


def luminance(colour: str) -> float:
    """Relative luminance after WCAG 2, 0 black to 1 white."""
    linear = []
    for i in (1, 3, 5):
        value = int(colour[i : i + 2], 16) / 255
        linear.append(value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4)
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(colour: str, other: str) -> float:
    """Contrast of two colours after WCAG 2, 1 to 21."""
    bright, dim = sorted((luminance(colour), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


class Palette:
    """The few colours of the dock, each readable on the other as it is used."""

    def __init__(self, look: Look) -> None:
        self.look = look
        self.page = look.background
        self.card = blend(look.background, look.raised, 0.55) if look.dark else blend(look.background, "#ffffff", 0.6)
        self.line = blend(self.card, look.text, 0.14)
        self.control = blend(look.control, self.card, 0.25)
        self.hover = look.hover if look.dark else blend(look.control, look.text, 0.12)
        self.text = look.text
        self.muted = blend(look.text, self.card, 0.33)
        # The light theme's accent is pale: a button that has to stand out needs a stronger blue.
        self.accent = "#4668d9" if look.dark else "#2f56c5"
        self.accent_hover = blend(self.accent, "#ffffff" if look.dark else "#000000", 0.14)
        self.on_accent = "#ffffff"
        self.good = "#5fce9a" if look.dark else "#146c43"
        self.bad = "#ff8a80" if look.dark else "#a3121c"
        self.bad_back = blend(self.card, "#d3202c", 0.22 if look.dark else 0.1)
        self.offer_back = blend(self.card, self.accent, 0.3 if look.dark else 0.12)


def stylesheet(look: Look) -> str:
    """Return the dock's style sheet; sizes follow the font so that a larger one cuts nothing off."""
    p = Palette(look)
    pt = look.font_pt
    badge = 2 * round(pt * 1.05)
    return f"""
#medtDock, #medtDock QScrollArea, #medtPage {{ background: {p.page}; }}
#medtDock QLabel, #medtDock QCheckBox {{ background: transparent; font-size: {pt}pt; color: {p.text}; padding: 0; }}
#medtDock QLabel:disabled, #medtDock QCheckBox:disabled {{ color: {p.muted}; }}
#medtDock QLabel[role="muted"] {{ color: {p.muted}; }}
#medtDock QLabel[role="form"] {{ color: {p.muted}; }}
#medtDock QLabel[role="title"] {{ font-size: {pt + 1.5}pt; font-weight: 600; }}
#medtDock QLabel[role="strong"] {{ font-weight: 600; }}
#medtDock QLabel[role="good"] {{ color: {p.good}; }}
#medtDock QLabel[role="bad"] {{ color: {p.bad}; }}
#medtDock QLabel[role="chip"] {{
    background: {p.control}; border: 1px solid transparent; border-radius: 4px; padding: 0.1em 0.5em;
}}
#medtDock QLabel[role="chip"][state="accepted"] {{ background: transparent; color: {p.good}; border: 1px solid {p.good}; }}
#medtDock QLabel[role="chip"][state="second look"] {{ background: {p.bad_back}; border: 1px solid {p.bad}; }}
#medtDock QLabel[role="summary"] {{ color: {p.muted}; }}
#medtDock QLabel[role="chevron"] {{ color: {p.muted}; font-size: {pt + 3}pt; }}
#medtDock QLabel[role="badge"] {{
    background: {p.control}; color: {p.text}; border: 1px solid transparent;
    border-radius: {badge // 2}px; font-weight: 600;
    min-width: {badge}px; max-width: {badge}px; min-height: {badge}px; max-height: {badge}px;
}}
#medtDock QLabel[role="badge"][state="next"] {{ background: {p.accent}; color: {p.on_accent}; }}
#medtDock QLabel[role="badge"][state="done"] {{ background: transparent; color: {p.good}; border: 1px solid {p.good}; }}
#medtDock QFrame[role="card"] {{ background: {p.card}; border: 1px solid {p.line}; border-radius: 6px; }}
#medtDock QFrame[role="card"][state="next"] {{ border: 1px solid {blend(p.line, p.accent, 0.75)}; }}
#medtDock QFrame[role="body"], #medtDock QFrame[role="plain"] {{ background: transparent; border: 0; }}
#medtDock QAbstractButton[role="header"] {{ background: transparent; border: 0; border-radius: 6px; padding: 0; }}
#medtDock QAbstractButton[role="header"]:hover {{ background: {blend(p.card, p.text, 0.06)}; }}
#medtDock QAbstractButton[role="header"]:focus {{ background: {blend(p.card, p.accent, 0.22)}; }}
#medtDock QPushButton, #medtDock QToolButton {{
    background: {p.control}; color: {p.text}; border: 1px solid transparent; border-radius: 4px;
    padding: 0.35em 0.7em; font-size: {pt}pt;
}}
#medtDock QPushButton:hover, #medtDock QToolButton:hover {{ background: {p.hover}; }}
#medtDock QPushButton:focus, #medtDock QToolButton:focus, #medtDock QComboBox:focus, #medtDock QAbstractSpinBox:focus {{
    border: 1px solid {p.muted};
}}
#medtDock QPushButton:pressed, #medtDock QToolButton:pressed {{ background: {blend(p.control, p.accent, 0.5)}; }}
#medtDock QPushButton:checked, #medtDock QToolButton:checked {{
    background: {blend(p.control, p.accent, 0.45)}; border: 1px solid {p.accent}; color: {p.text};
}}
#medtDock QPushButton:disabled, #medtDock QToolButton:disabled {{
    background: {blend(p.control, p.card, 0.7)}; color: {blend(p.muted, p.card, 0.35)}; border: 1px solid transparent;
}}
#medtDock QPushButton[primary="true"]:enabled, #medtDock QToolButton[primary="true"]:enabled {{
    background: {p.accent}; color: {p.on_accent}; font-weight: 600; border: 1px solid {p.accent};
}}
#medtDock QPushButton[primary="true"]:enabled:hover, #medtDock QPushButton[primary="true"]:enabled:focus {{
    background: {p.accent_hover};
}}
#medtDock QDoubleSpinBox {{
    background: {p.control}; color: {p.text}; border: 1px solid transparent; border-radius: 4px; padding: 0.15em 22px;
    font-size: {pt}pt; min-height: {round(pt * 2.1)}px; min-width: 3em;
}}
#medtDock QDoubleSpinBox:hover {{ background: {p.hover}; }}
#medtDock QDoubleSpinBox:focus {{ border: 1px solid {p.muted}; }}
#medtDock QDoubleSpinBox:disabled {{
    background: {blend(p.control, p.card, 0.7)}; color: {blend(p.muted, p.card, 0.35)};
}}
#medtDock QPushButton[role="big"] {{ padding: 0.5em 1.1em; }}
#medtDock QToolButton[role="quiet"] {{ background: transparent; color: {p.muted}; padding: 0.2em 0.4em; }}
#medtDock QToolButton[role="quiet"]:hover, #medtDock QToolButton[role="quiet"]:checked {{
    color: {p.text}; background: {p.control}; border: 1px solid transparent;
}}
#medtDock QToolButton[role="quiet"]:disabled {{ color: {blend(p.muted, p.card, 0.6)}; background: transparent; }}
#medtDock QComboBox, #medtDock QAbstractSpinBox {{
    background: {p.control}; color: {p.text}; border: 1px solid transparent; border-radius: 4px;
    font-size: {pt}pt; min-height: {round(pt * 2.1)}px; min-width: 3em;
}}
#medtDock QComboBox {{ padding: 0.15em 0.2em 0.15em 0.6em; }}
#medtDock QAbstractSpinBox {{ padding: 0.15em 22px; }}
#medtDock QComboBox:hover, #medtDock QAbstractSpinBox:hover {{ background: {p.hover}; }}
#medtDock QComboBox:disabled, #medtDock QAbstractSpinBox:disabled {{
    background: {blend(p.control, p.card, 0.7)}; color: {blend(p.muted, p.card, 0.35)};
}}
#medtDock QComboBox QAbstractItemView {{ background: {p.control}; color: {p.text}; font-size: {pt}pt; padding: 2px; }}
#medtDock QProgressBar {{
    background: {p.control}; border: 0; border-radius: 4px; color: {p.text}; font-size: {pt}pt;
    min-height: {round(pt * 0.75)}px; max-height: {round(pt * 0.75)}px;
}}
#medtDock QProgressBar::chunk {{ background: {p.accent}; border-radius: 4px; width: 1px; }}
#medtDock QFrame[role="message"] {{ background: transparent; border: 0; border-radius: 4px; }}
#medtDock QFrame[role="message"][kind="error"] {{ background: {p.bad_back}; border-left: 3px solid {p.bad}; }}
#medtDock QFrame[role="message"][kind="error"] QLabel {{ color: {p.text}; }}
#medtDock QFrame[role="message"][kind="good"] QLabel[role="sign"] {{ color: {p.good}; }}
#medtDock QFrame[role="message"][kind="error"] QLabel[role="sign"] {{ color: {p.bad}; }}
#medtDock QFrame[role="message"][kind="plain"] QLabel {{ color: {p.muted}; }}
#medtDock QFrame[role="offer"] {{ background: {p.offer_back}; border: 1px solid {p.accent}; border-radius: 6px; }}
#medtDock QFrame[role="toolform"] {{ background: {blend(p.card, p.page, 0.6)}; border: 1px solid {p.accent}; border-radius: 6px; }}
#medtDock QFrame[role="hints"] {{ background: {p.offer_back}; border-left: 3px solid {p.accent}; border-radius: 4px; }}
#medtDock QListWidget, #medtDock QTreeWidget {{
    background: {p.control}; color: {p.text}; border: 0; border-radius: 4px; font-size: {pt}pt; padding: 2px;
}}
#medtDock QListWidget::item:selected, #medtDock QTreeWidget::item:selected {{
    background: {blend(p.control, p.accent, 0.5)}; color: {p.text};
}}
#medtDock QFrame[role="modelcard"] {{ background: {blend(p.card, p.page, 0.6)}; border: 1px solid {p.line}; border-radius: 4px; }}
"""
