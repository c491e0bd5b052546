"""What every architecture must do, whatever it is: run over the registry, in two dimensions and in three."""

from __future__ import annotations

import copy
import importlib.util
import re
import subprocess
import sys

import pytest
import torch

from napari_medt.core import BadModel
from napari_medt.nets import capture, create_net, list_attention_sources, list_nets

NETS = [(info.name, dims) for info in list_nets() for dims in info.spatial_dims]
HEAVY = {("swin-unetr", 3), ("vnet", 3)}  # MONAI's: in three dimensions they take as long as all others together
SIZES = {2: [(64, 64), (1, 1), (97, 130)], 3: [(32, 32, 32), (1, 1, 1), (33, 65, 47)]}

# Of every network: its three presets, small, standard, paper.
PARAMETERS = {
    ("attention-unet", 2): (542_931, 8_725_534, 2_379_594),
    ("attention-unet", 3): (1_612_275, 25_978_462, 6_473_322),
    ("axial-unet", 2): (1_326_850, 1_326_850, 1_326_850),
    ("fine", 3): (1_132_388, 9_666_760, 183_907_444),
    ("gated-axial-unet", 2): (1_326_914, 1_326_914, 1_326_914),
    ("glam", 3): (1_212_260, 10_557_640, 214_845_172),
    ("guided-attention", 2): (1_241_615, 8_818_183, 103_556_063),
    ("logo", 2): (1_529_498, 1_529_498, 1_529_498),
    ("medt", 2): (1_524_570, 1_524_570, 1_524_570),
    ("segresnet", 2): (394_986, 1_576_402, 6_299_427),
    ("segresnet", 3): (1_176_186, 4_700_914, 18_798_627),
    ("swin-unetr", 2): (1_590_128, 6_302_228, 25_138_568),
    ("swin-unetr", 3): (4_078_064, 15_703_004, 62_187_296),
    ("u-transformer", 2): (751_122, 11_965_506, 11_941_255),
    ("u-transformer", 3): (2_059_058, 32_889_026, 32_143_879),
    ("unet", 2): (401_605, 1_625_161, 1_626_360),
    ("unet", 3): (1_186_765, 4_806_481, 4_810_074),
    ("unetr", 2): (636_770, 22_629_826, 39_720_883),
    ("unetr", 3): (1_242_610, 25_961_698, 49_667_123),
    ("vnet", 2): (9_358_730,) * 3,
    ("vnet", 3): (45_597_898,) * 3,
}

FIVE, FOUR = (16, 32, 64, 128, 256), {"in_channels": 4, "num_classes": 3}
VIT = {"form": "monai", "embed": 768, "heads": 12, "hidden": 3072}
# What the original implementations count; subtracted are their parameters that nothing reads, which ours do not have.
PUBLISHED = [
    (1_326_850, "axial-unet", {}),
    (1_321_218, "axial-unet", {"img_size": 64}),
    (1_338_114, "axial-unet", {"img_size": 256}),
    (1_360_642, "axial-unet", {"img_size": 512}),
    (1_326_914, "gated-axial-unet", {}),
    (1_529_532 - 34, "logo", {}),
    (1_560_140 - 35_570, "medt", {}),
    (1_564_236 - 35_570, "medt", {"img_size": 256}),
    (1_572_428 - 35_570, "medt", {"img_size": 512}),
    (34_878_573, "attention-unet", {"channels": (64, 128, 256, 512, 1024), "in_channels": 3, "num_classes": 1}),
    (6_214_151, "attention-unet", {"preset": "paper", "form": "single"}),
    (6_473_322, "attention-unet", {"preset": "paper"}),
    (2_135_799, "attention-unet", {"preset": "paper", "form": "grid"}),
    (5_910_443, "attention-unet", {"form": "monai", "spatial_dims": 3, "channels": FIVE, **FOUR}),
    (31_739_250, "attention-unet", {"form": "monai", "channels": (64, 128, 256, 512, 1024)}),
    (494_278, "attention-unet", {"form": "monai", "channels": FIVE[:4], "in_channels": 3}),
    (1_987_722, "attention-unet", {"form": "monai", "channels": FIVE, "in_channels": 3}),
    (104_511_475 - 955_412, "guided-attention", {"preset": "paper"}),
    (49_667_123, "unetr", {"preset": "paper"}),
    (102_271_539 - 18_432, "unetr", {**VIT, "img_size": (128, 128, 64), **FOUR}),
    (92_802_478 - 18_432, "unetr", {**VIT, "num_classes": 14}),
    (101_805_646 - 18_432, "unetr", {**VIT, "num_classes": 14, "width": 32}),
    (87_333_826 - 18_432, "unetr", {**VIT, "spatial_dims": 2, "img_size": 256}),
    (222_350_466 - 38_443_022, "fine", {"preset": "paper"}),
    (253_547_778 - 38_702_606, "glam", {"preset": "paper"}),
    (11_676_803, "u-transformer", {"wiring": "community", "token_strides": (1, 1, 1), "num_classes": 3}),
    (31_042_434, "u-transformer", {"channels": (64, 128, 256, 512, 1024), "mhsa": False, "mhca": False}),
    (4_810_074, "unet", {"preset": "paper"}),
    (1_981_771, "unet", {"preset": "paper", "num_res_units": 0}),
    (1_625_161, "unet", {}),
    (45_597_898, "vnet", {}),
    (45_607_906, "vnet", FOUR),
    (4_702_227, "segresnet", FOUR),
    (4_079_373, "swin-unetr", {"width": 12, **FOUR}),
    (15_705_621, "swin-unetr", FOUR),
]

# Biases before a norm, kept because weights of the original networks have them, and those of keys before a softmax.
AXIAL = r".*\.height\.out_norm\.bias"  # the norm of the attention along the width takes it away
NEVER_LEARN = {
    "attention-unet": r"(encoder|merges)\.\d\.[03]\.bias|ups\.\d\.1\.bias|gates\.\d\.\w+\.0\.bias",
    "axial-unet": AXIAL,
    "gated-axial-unet": AXIAL,
    "logo": AXIAL,
    "medt": AXIAL,
    "guided-attention": (
        r"(down\.\d\.0|fuse\.[036]|(first|second)\.(position|channel)\.\d\.[04])\.bias"
        r"|.*\.autoencoder\.(encode|decode)\d\.[03]\.bias|.*\.key\.bias"
    ),
    "u-transformer": (
        r"(encoder|decoder)\.\d\.[03]\.bias|self_attention\.key\.bias"
        r"|joins\.\d\.(reduce\.0|enter\.0|gate\.conv|widen|narrow)\.bias"
    ),
    "unet": r"(?!net\.model\.2\.1\.).*\.conv\.bias",  # all but the last convolution
    "unetr": r"(stem|fuse\.\d)\.(conv[12]|shortcut)\.bias",
    "vnet": r".*\.up_conv\.bias",
}


def options_of(name, dims, **others):
    """Options that this architecture has, of the small preset."""
    defaults = next(info.defaults for info in list_nets() if info.name == name)
    wanted = {"in_channels": 2, "num_classes": 3, "spatial_dims": dims, "img_size": 64 if dims == 2 else 32, **others}
    return {key: value for key, value in wanted.items() if key in defaults}


def needs_monai(name):
    return any(info.extra for info in list_nets() if info.name == name)


def build(name, dims, **others):
    torch.manual_seed(0)
    return create_net(name, preset="small", **options_of(name, dims, **others)).eval()


def usual(dims, n=2, channels=2):
    torch.manual_seed(1)
    return torch.rand(n, channels, *SIZES[dims][0])


def closeness(a, b):
    """Largest difference in standard deviations of what is expected."""
    return float((a - b).abs().max() / b.std())


@pytest.fixture(
    params=[
        pytest.param((name, dims), id=f"{name}-{dims}d", marks=[pytest.mark.slow] if (name, dims) in HEAVY else [])
        for name, dims in NETS
    ]
)
def case(request):
    if needs_monai(request.param[0]):
        pytest.importorskip("monai")
    return request.param


@pytest.fixture
def net(case):
    return build(*case)


def count(name, **options):
    with torch.device("meta"):
        return sum(p.numel() for p in create_net(name, **options).parameters())


def loss_of(net, outputs, x):
    """The net's own loss where it has one."""
    target = (x[:, 0] > 0.5).long()
    criterion = torch.nn.functional.cross_entropy
    return net.loss(outputs, target, criterion) if hasattr(net, "loss") else criterion(outputs, target)


@pytest.mark.parametrize("index", range(3))
def test_any_size_gives_logits_of_the_same_size(case, net, index):
    sizes = SIZES[case[1]]
    with torch.inference_mode():
        logits = net(torch.rand(1, 2, *sizes[index]))
    assert logits.shape == (1, 3, *sizes[index])
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize(("channels", "classes"), [(1, 5), (2, 4), (3, 1), (4, 2), (5, 3)])
def test_any_number_of_channels_and_classes(case, channels, classes):
    net = build(*case, in_channels=channels, num_classes=classes)
    size = (8,) * case[1]
    with torch.inference_mode():
        logits = net(torch.rand(1, channels, *size))
    assert logits.shape == (1, classes, *size)
    assert torch.isfinite(logits).all()


def test_samples_do_not_influence_each_other_in_evaluation(case, net):
    x = usual(case[1])
    with torch.inference_mode():
        expected = net(x)[1:]
        torch.testing.assert_close(expected, net(x[1:]), rtol=1e-3, atol=1e-4 * float(expected.std()))


@pytest.mark.parametrize(("n", "size"), [(1, (1, 1, 1)), (2, (1, 1, 1)), (1, (9, 17, 33))])
def test_training_takes_any_size_and_reaches_every_parameter(case, net, n, size):
    """Also one voxel of one image, which leaves batch and instance norm nothing to normalise by."""
    x = torch.rand(n, 2, *size[-case[1] :])
    loss = loss_of(net.train(), net(x), x)
    assert torch.isfinite(loss)
    loss.backward()
    trainable = {name: p.grad for name, p in net.named_parameters() if p.requires_grad}
    assert [name for name, grad in trainable.items() if grad is None or not torch.isfinite(grad).all()] == []
    assert all(torch.isfinite(buffer).all() for buffer in net.buffers())
    assert all(
        module.running_var.min() > 0 for module in net.modules() if getattr(module, "running_var", None) is not None
    )


@pytest.mark.parametrize("name", sorted({name for name, _ in NETS}))
def test_parameters_that_never_learn(name):
    """Constants that a norm or a softmax behind them takes away: in float64 their gradient is rounding, far below all others."""
    if needs_monai(name):
        pytest.importorskip("monai")
    dims = min(dims for other, dims in NETS if other == name)
    net = build(name, dims).double().train()
    for parameter in net.parameters():
        if not parameter.any():  # a factor that starts at 0 hides what stands before it
            torch.nn.init.normal_(parameter, std=0.1)
    x = usual(dims).double()
    loss_of(net, net(x), x).backward()
    frozen = [key for key, p in net.named_parameters() if not p.requires_grad]
    largest = {key: float(p.grad.abs().max()) for key, p in net.named_parameters() if p.requires_grad}
    median = sorted(largest.values())[len(largest) // 2]
    assert [key for key in frozen if not key.endswith("logits_norm.bias")] == []
    assert len(frozen) == sum(key.endswith("logits_norm.bias") for key, _ in net.named_parameters())
    idle = [key for key, value in largest.items() if value < 1e-10 * median]
    expected = [key for key in largest if NEVER_LEARN.get(name) and re.fullmatch(NEVER_LEARN[name], key)]
    assert idle == expected


def test_state_dict_round_trip_is_exact(case, net):
    other = copy.deepcopy(net)
    for parameter in other.parameters():
        torch.nn.init.normal_(parameter)
    other.load_state_dict(net.state_dict())
    with torch.inference_mode():
        assert torch.equal(net(usual(case[1], 1)), other(usual(case[1], 1)))


def test_training_is_deterministic(case, net):
    def step():
        trained = copy.deepcopy(net).train()
        torch.manual_seed(1)
        x = usual(case[1], 1)
        loss_of(trained, trained(x), x).backward()
        return [p.grad for p in trained.parameters() if p.requires_grad]

    assert all(torch.equal(a, b) for a, b in zip(step(), step(), strict=True))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.2), (torch.float16, 0.03)])
def test_half_precision_is_close_to_single(case, net, dtype, tolerance):
    """The network cast as a whole, and under autocast; bfloat16 has 8 bits, float16 11."""
    name, dims = case
    if dtype == torch.float16 and dims == 3 and (name, 2) in NETS:
        pytest.skip("processors convolve volumes of float16 voxel by voxel; its layers are those in two dimensions")
    x = usual(dims, 1)
    with torch.inference_mode():
        expected = net(x)
        with torch.autocast("cpu", dtype=dtype):
            assert closeness(net(x).float(), expected) < tolerance
        half = net.to(dtype)(x.to(dtype))
    assert half.dtype == dtype
    assert closeness(half.float(), expected) < tolerance


def test_channels_last_gives_the_same(case, net):
    layout = torch.channels_last if case[1] == 2 else torch.channels_last_3d
    x = usual(case[1], 1)
    with torch.inference_mode():
        expected = net(x)
        got = net.to(memory_format=layout)(x.to(memory_format=layout))
    assert closeness(got, expected) < 1e-3


@pytest.mark.slow
def test_exported_program_gives_the_same(case, net):
    """Where the registry says so, which is everywhere."""
    assert next(info.exports for info in list_nets() if info.name == case[0])
    x = usual(case[1])
    with torch.no_grad():
        exported = torch.export.export(net, (x,)).module()
        assert closeness(exported(x.flip(-1)), net(x.flip(-1))) < 1e-4


UNDER_A_LIMIT = """
import resource, sys, torch
from tests.nets.test_all_nets import build, loss_of
resource.setrlimit(resource.RLIMIT_AS, (2 * 2**30, 2 * 2**30))
torch.set_num_threads(1)
for name, dims in zip(sys.argv[2::2], map(int, sys.argv[3::2]), strict=True):
    size = (256, 256) if dims == 2 else (64, 64, 64)
    x = torch.rand(1, 1, *size)
    net = build(name, dims, in_channels=1).train(sys.argv[1] == "train")
    print(name, dims, flush=True)
    if net.training:
        loss_of(net, net(x), x).backward()
    else:
        with torch.inference_mode():
            assert net(x).shape == (1, 3, *size)
"""


def under_a_limit(root, mode, cases):
    """All that one process reserves, the interpreter and torch included, stays within two gigabytes."""
    arguments = [str(word) for case in cases for word in case]
    done = subprocess.run(
        [sys.executable, "-c", UNDER_A_LIMIT, mode, *arguments], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout.splitlines()[-1:]}: {done.stderr[-500:]}"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits what a process may reserve")
def test_two_gigabytes_are_enough_to_predict(root):
    installed = importlib.util.find_spec("monai") is not None
    cases = [case for case in NETS if case not in HEAVY and (installed or not needs_monai(case[0]))]
    under_a_limit(root, "predict", cases)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits what a process may reserve")
def test_two_gigabytes_are_enough_to_train(root, case):
    """But for Swin UNETR of volumes."""
    under_a_limit(root, "predict" if case == ("swin-unetr", 3) else "train", [case])


def test_attention_is_kept_only_while_captured(case, net):
    sources = list_attention_sources(net)
    if not sources:
        pytest.skip("shows no attention")
    assert len({source.name for source in sources}) == len(sources)
    x = usual(case[1])
    with torch.inference_mode():
        plain = net(x)
        with capture(net) as captured:
            seen = net(x)
        torch.testing.assert_close(seen, plain, rtol=1e-4, atol=1e-5 * float(plain.std()) + 1e-6)
        net(x)
    assert set(captured) == {source.name for source in sources}
    assert all(len(states) == 1 for states in captured.values())
    assert all(module.seen is None for module in net.attention_sources().values())


def test_rows_of_a_query_sum_to_one_and_gates_lie_between_zero_and_one(case, net):
    sources = list_attention_sources(net)
    if not sources:
        pytest.skip("shows no attention")
    query = tuple(size // 3 for size in SIZES[case[1]][0])
    with torch.inference_mode(), capture(net, query=query) as captured:
        net(usual(case[1]))
    for source in sources:
        (rows,) = captured[source.name]
        assert len(rows) == 2, source
        if source.kind == "gate":
            assert 0 <= rows.min() <= rows.max() <= 1, source
            continue
        assert rows.shape[1] == source.heads, source
        sums = rows.flatten(2).sum(-1)
        torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-4, msg=source.name)


def test_query_outside_the_input_and_unknown_source_are_refused(case, net):
    if not list_attention_sources(net):
        pytest.skip("shows no attention")
    with pytest.raises(ValueError, match="outside the input"), capture(net, query=(999,) * case[1]):
        net(usual(case[1], 1))
    with pytest.raises(ValueError, match="no attention source nowhere"), capture(net, ["nowhere"]):
        pass


def test_registry_tells_sizes_presets_and_sources():
    for info in list_nets():
        if info.extra:
            pytest.importorskip("monai")
        assert info.title
        assert info.paper
        assert set(info.presets) == {"small", "standard", "paper"}
        assert info.parameters > 1000
        assert info.attention
        assert info.sources or info.extra == "baselines", info.name


@pytest.mark.parametrize(("name", "dims"), NETS)
def test_parameter_counts_of_every_preset(name, dims):
    if needs_monai(name):
        pytest.importorskip("monai")
    defaults = next(info.defaults for info in list_nets() if info.name == name)
    options = {"spatial_dims": dims} if "spatial_dims" in defaults else {}
    counts = tuple(count(name, preset=preset, **options) for preset in ("small", "standard", "paper"))
    assert counts == PARAMETERS[name, dims]


@pytest.mark.parametrize(("expected", "name", "options"), PUBLISHED)
def test_parameter_counts_are_those_of_the_published_networks(expected, name, options):
    if needs_monai(name):
        pytest.importorskip("monai")
    assert count(name, **options) == expected


def test_unknown_name_suggests_the_nearest():
    """No architecture is called 'metd'; did you mean 'medt'."""
    with pytest.raises(BadModel, match="did you mean 'medt'"):
        create_net("metd")


def test_unknown_option_lists_the_known_ones():
    with pytest.raises(BadModel, match="no option classes; its options are img_size, in_channels, num_classes"):
        create_net("axial-unet", classes=3)


def test_size_that_no_table_can_have_is_refused():
    with pytest.raises(BadModel, match="multiple of 64, not 100 x 100"):
        create_net("medt", img_size=100)


def test_unknown_preset_lists_the_known_ones():
    """No preset is called 'tiny'; choose one of small, standard, paper."""
    with pytest.raises(BadModel, match="choose one of small, standard, paper"):
        create_net("medt", preset="tiny")


@pytest.mark.parametrize("name", sorted({name for name, _ in NETS}))
def test_options_that_make_no_network_are_refused_by_name(name):
    """medt cannot be built with these options: in_channels must be a whole number of at least 1, not 0."""
    defaults = next(info.defaults for info in list_nets() if info.name == name)
    nonsense = {
        **dict.fromkeys(("in_channels", "num_classes", "width", "embed", "hidden"), (0, -1, 1.5, "two", None, (1, 2))),
        **dict.fromkeys(("img_size", "channels", "window", "volume_grid", "patch"), (0, -1, "big", (0, 64), (), None)),
        "depths": (0, (0, 1), ()),
        "heads": (0, -2, (0, 0), "x"),
        "spatial_dims": (1, 4, "two"),
        "window_tokens": (-1,),
        "num_res_units": (-1,),
    }
    for option, values in nonsense.items():
        for value in values if option in defaults else ():
            with pytest.raises(BadModel, match=rf"{option} .*(must be|is 2 or 3)"):
                create_net(name, **{option: value})


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("u-transformer", {"heads": 7}, "512 channels cannot be shared by 7 heads"),
        ("unetr", {"heads": 7, "form": "monai"}, "7 heads do not divide 384 channels"),
        ("glam", {"heads": (5, 5, 5, 5)}, "48 channels cannot be shared by 5 heads"),
        ("fine", {"heads": 3}, "heads must be several whole numbers of at least 1, not 3"),
        ("fine", {"drop_path": 1.0}, "drop_path is a share from 0 to below 1, not 1.0"),
        ("glam", {"wiring": "theirs"}, "wiring is one of standard, authors, not 'theirs'"),
        ("medt", {"local_statistics": "image"}, "local_statistics is 'patch' or 'batch', not 'image'"),
    ],
)
def test_options_that_do_not_fit_each_other_are_refused(name, options, text):
    with pytest.raises(BadModel, match=re.escape(text)):
        create_net(name, **options)


def test_a_preset_for_volumes_gives_images_the_default_size():
    assert create_net("unetr", preset="paper", spatial_dims=2).encoder.positions.shape[2:] == (6, 6)
