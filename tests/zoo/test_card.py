"""Cards: what does not fit is named with its value, its rule and the way out; one bad card spares the others."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
from pydantic import ValidationError

from napari_medt.core import BadModel
from napari_medt.zoo import Intensity, Score, broken_models, list_models, load_model, models_folder, versions
from napari_medt.zoo.card import parse_card, slug

SCORE = {"dataset": "d", "group": "g", "images": 3, "dice": 0.9, "iou": 0.8, "f1": 0.9}


def test_card_survives_json(card):
    made = card(
        scores=(Score(**SCORE),), channels=("DAPI", "actin"), net_options={"in_channels": 2}, notes=("A note.",)
    )
    assert parse_card(made.model_dump_json(), where="card.json") == made


def test_what_a_card_says_of_scans_survives_json(card):
    made = card(
        spatial_dims=3,
        window=(16, 32, 32),
        spacing=(3, 1.5, 1.5),
        orientation="SPL",
        intensity=Intensity(kind="clip", low=-160, high=240, per_channel=True),
        crop="foreground",
        value_range=(-1024, 3071),
        field_of_view_mm=(300, 400, 400),
        temperature=1.7,
    )
    assert parse_card(made.model_dump_json(), where="card.json") == made


def test_cards_from_before_say_that_scans_are_taken_as_they_come(card):
    values = card().model_dump(mode="json")
    for entry in ("spacing", "orientation", "crop", "value_range", "field_of_view_mm", "temperature"):
        del values[entry]
    del values["intensity"]["per_channel"]
    found = parse_card(json.dumps(values), where="card.json")
    assert found == card()
    assert (found.spacing, found.orientation, found.crop, found.temperature) == (None, "", "none", 1)


def test_card_is_frozen(card):
    with pytest.raises(ValidationError, match="frozen"):
        card().title = "Other"


@pytest.mark.parametrize(
    ("channels", "count"), [("grey", 1), ("rgb", 3), ("bgr", 3), (("a",), 1), (("a", "b", "c", "d"), 4)]
)
def test_channels_say_how_many_the_network_takes(card, channels, count):
    assert card(channels=channels).in_channels == count


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"schema_version": 9, "new": 1}, "is of a format this version does not know (9); update napari-medt."),
        (
            {"classes": ["only"]},
            "its entry 'classes' is ['only'], but it must name the background and at least one class",
        ),
        (
            {"name": "Big Name"},
            "its entry 'name' is 'Big Name', but it must be small letters, digits, '.', '_' and '-'",
        ),
        ({"name": "../tiny"}, "its entry 'name' is '../tiny', but it must be small letters"),
        ({"version": 0}, "its entry 'version' is 0, but it should be greater than or equal to 1"),
        (
            {"channels": "cmyk"},
            "its entry 'channels' is 'cmyk', but it must be 'grey', 'rgb', 'bgr' or a list of names",
        ),
        ({"channels": []}, "its entry 'channels' is [], but it must be 'grey', 'rgb', 'bgr' or a list of names"),
        ({"net_options": {"num_classes": 5}}, "num_classes of the network is 5, but the card describes 2"),
        ({"net_options": {"in_channels": 1}}, "in_channels of the network is 1, but the card describes 3"),
        ({"window": [32]}, "the window (32,) does not have 2 positive sizes"),
        ({"window": [32, 0]}, "the window (32, 0) does not have 2 positive sizes"),
        (
            {"intensity": {"kind": "log"}},
            "its entry 'intensity.kind' is 'log', but it should be 'percentile', 'clip', 'zscore', 'unit' or 'none'",
        ),
        (
            {"intensity": {"kind": "percentile", "low": 99, "high": 1}},
            "in 'intensity', the low percentile 99 is not below",
        ),
        ({"intensity": {"kind": "percentile", "high": 120}}, "a percentile lies between 0 and 100, not at 120"),
        ({"intensity": {"kind": "clip", "low": -160}}, "in 'intensity', 'clip' needs the values 'low' and 'high'"),
        (
            {"intensity": {"kind": "clip", "low": 240, "high": -160}},
            "in 'intensity', the low value 240 is not below the high one, -160",
        ),
        ({"spacing": [1, 1, 1]}, "spacing has 3 lengths, but the network has 2 axes"),
        ({"field_of_view_mm": [1, 1, 1]}, "field_of_view_mm has 3 lengths, but the network has 2 axes"),
        ({"spacing": [1, 0]}, "its entry 'spacing.1' is 0, but it should be greater than 0"),
        ({"orientation": "SPS"}, "the orientation 'SPS' is not one letter each of S or I, P or A, L or R"),
        ({"orientation": "spl"}, "the orientation 'spl' is not one letter each of S or I, P or A, L or R"),
        ({"crop": "body"}, "its entry 'crop' is 'body', but it should be 'none' or 'foreground'"),
        ({"value_range": [3000, -1024]}, "the value_range 3000 to -1024 does not ascend"),
        ({"temperature": 0}, "its entry 'temperature' is 0, but it should be greater than 0"),
        (
            {"scores": [SCORE | {"dice": 1.2}]},
            "its entry 'scores.0.dice' is 1.2, but it should be less than or equal to 1",
        ),
        ({"scores": [SCORE | {"iou": None}]}, "its entry 'scores.0.iou' is None, but it should be a valid number"),
        ({"sha256": "abc"}, "its entry 'sha256' is 'abc', but it must be 64 hexadecimal digits"),
        ({"surprise": 1}, "it has an entry 'surprise', which no card has; correct the entry, or restore the card"),
        (
            {"title": "", "version": 0},
            "its entry 'version' is 0, but it should be greater than or equal to 1 (and 1 more)",
        ),
        ({"title": "x" * 99, "version": "y" * 99}, "'" + "y" * 56 + "..., but it should be a valid integer"),
    ],
    ids=lambda value: "" if isinstance(value, str) else json.dumps(value)[:40],
)
def test_entry_that_does_not_fit_is_named(card, change, sentence):
    with pytest.raises(BadModel) as caught:
        parse_card(json.dumps(card().model_dump(mode="json") | change), where="there/card.json")
    assert str(caught.value).startswith("The model card there/card.json ")
    assert sentence in str(caught.value)
    assert "pydantic" not in str(caught.value)


@pytest.mark.parametrize("missing", ["name", "title", "architecture", "net_options", "classes", "window", "intensity"])
def test_entry_that_is_missing_is_named(card, missing):
    values = card().model_dump(mode="json")
    del values[missing]
    with pytest.raises(BadModel, match=f"its entry '{missing}' is missing"):
        parse_card(json.dumps(values), where="card.json")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"", "it is not JSON"),
        (b'{"name": "tiny",', "it is not JSON"),
        (b"\xff\xfe\x00", "it is not JSON"),
        (b"[1]", "it does not hold the entries of a card"),
        (b"null", "it does not hold the entries of a card"),
    ],
)
def test_what_is_no_card_is_said(text, sentence):
    with pytest.raises(BadModel, match=sentence):
        parse_card(text, where="card.json")


@pytest.mark.parametrize(
    ("text", "name"),
    [("final_model", "final_model"), ("Mein Modell (2)", "mein-modell-2"), ("细胞", "model"), ("..", "model")],
)
def test_any_text_becomes_a_name_that_cards_take(card, text, name):
    assert card(name=slug(text)).name == name


def test_damaged_models_spare_the_others_and_are_told(folder):
    for name, content in (("broken", "{"), ("future", json.dumps({"schema_version": 2}))):
        place = models_folder() / name / "v1"
        shutil.copytree(folder, place)
        (place / "card.json").write_text(content)
    (models_folder() / "empty" / "v3").mkdir(parents=True)
    (models_folder() / "notes.txt").write_text("no model")
    (models_folder() / "tiny" / ".v2.abc.tmp").mkdir()
    assert [found.key for found in list_models() if found.name in ("tiny", "broken", "future", "empty")] == ["tiny@1"]
    told = broken_models()
    assert len(told) == 3
    assert "it is not JSON" in told[0]
    assert "not a model folder: its card.json cannot be read (No such file or directory)" in told[1]
    assert "update napari-medt" in told[2]


def test_damaged_model_says_so_when_it_is_asked_for(folder):
    """A later version is never given silently in its place."""
    shutil.copytree(folder, folder.with_name("v2"))
    values = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text("")
    (folder.with_name("v2") / "card.json").write_text(json.dumps(values | {"version": 2}))
    for name in ("tiny", "tiny@1"):
        with pytest.raises(BadModel, match="it is not JSON"):
            load_model(name, device="cpu")
    assert load_model("tiny@2", device="cpu").card.version == 2


def test_two_folders_of_one_version_are_told(folder):
    shutil.copytree(folder, folder.with_name("v2"))
    assert [found.version for found in versions("tiny")] == [1]
    (told,) = broken_models()
    assert "v2 was left out: another of the same name and version, tiny@1, lies in" in told
    with pytest.raises(BadModel, match="was left out"):
        load_model("tiny@2")


def test_percentiles_have_an_order():
    with pytest.raises(ValidationError, match="the low percentile 5 is not below the high one, 5"):
        Intensity(kind="percentile", low=5, high=5)


def test_cards_are_read_without_torch(folder):
    code = (
        "import sys\n"
        "from napari_medt.zoo import ModelCard, broken_models, list_models, models_folder, versions\n"
        "import napari_medt.zoo.card\n"
        "assert [card.key for card in versions('tiny')] == ['tiny@1'] and list_models() and not broken_models()\n"
        "loaded = {'torch', 'safetensors', 'monai'} & set(sys.modules)\n"
        "assert not loaded, f'{loaded} was loaded'\n"
        "from napari_medt.zoo import Model\n"
        "assert 'torch' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("bundled", list_models(), ids=lambda card: card.key)
def test_every_bundled_card_tells_what_a_clinician_asks(bundled):
    asked = (
        "description",
        "modality",
        "training_data",
        "licence",
        "intended_use",
        "limits",
        "attribution",
        "recipe",
    )
    assert [entry for entry in asked if not getattr(bundled, entry)] == []
    assert bundled.scores


@pytest.mark.parametrize("bundled", list_models(), ids=lambda card: card.key)
def test_the_readme_states_the_scores_of_the_card(bundled, root):
    """All figures of its row, the mean first, each that of a group or a structure."""
    rows = [line for line in (root / "README.md").read_text(encoding="utf-8").splitlines() if line[2:].startswith("`")]
    told = next(line for line in rows if line.startswith(f"| `{bundled.name}` |")).split("|")[2:-1]
    overall = next(score for score in bundled.scores if score.group == "all" and not score.structure)
    assert float(told[0].split()[0]) == round(overall.dice, 3)
    known = {round(score.dice, 3) for score in bundled.scores} | {round(overall.hd95 or 0)}
    assert {float(figure) for figure in told[1:]} <= known
