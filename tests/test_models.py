import re

import pytest
import torch
from helpers import last, same
from torch import nn
from torchvision.ops import StochasticDepth

from fedecouple_lite import DecoupledNet, make, net_for, rounds, split
from fedecouple_lite.models import alike


def test_a_resnet_is_the_same_for_every_client_of_a_stack_and_takes_any_image_size(few):
    net = net_for((1, 8, 8), 10, "resnet18")
    weights = net.init(0)
    assert net.features_dim == 512 and 11e6 < sum(weight.numel() for weight in weights.values()) < 12e6
    assert not [name for name in weights if "running" in name]  # no statistics of batches
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    alone = net.logits(weights, x[:1])
    assert alike(net.logits(weights, x)[:1], alone)
    assert net_for((3, 32, 32), 7, "resnet18").classes == 7


@pytest.mark.parametrize(
    ("shape", "name", "hidden"), [((1, 8, 8), None, 128), ((1, 28, 28), None, 800), ((3, 32, 32), None, 576)]
)
def test_built_in_nets_have_the_stated_sizes(shape, name, hidden):
    net = net_for(shape, 10, name)
    weights = net.init(0)
    assert net.features_dim == 128 and net.classes == 10
    linear = next(t for n, t in weights.items() if n.startswith("extractor.") and t.ndim == 2)
    assert linear.shape == (128, hidden)
    x = torch.randn(5, *shape)
    z = net.features(weights, x)
    assert z.shape == (5, 128)
    assert torch.equal(net.classify(weights, z), net.logits(weights, x))


def test_logits_equal_the_plain_modules():
    extractor, classifier = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.Tanh()), nn.Linear(6, 3)
    net = DecoupledNet(extractor, classifier, (1, 8, 8))
    weights = {f"extractor.{n}": p for n, p in extractor.named_parameters()}
    weights |= {f"classifier.{n}": p for n, p in classifier.named_parameters()}
    x = torch.randn(4, 1, 8, 8)
    assert torch.equal(net.logits(weights, x), classifier(extractor(x)))
    second = {f"personal.{n}": t * 2 for n, t in weights.items()}
    assert torch.equal(
        net.logits(weights | second, x, "personal."), net.logits({n[9:]: t for n, t in second.items()}, x)
    )


def test_init_depends_on_the_seed_alone_and_leaves_the_global_generator(net):
    before = torch.random.get_rng_state()
    assert same(net.init(3), net.init(3))
    assert not same(net.init(3), net.init(4))
    assert torch.equal(before, torch.random.get_rng_state())
    for name, t in net.init(0).items():
        fan_in = {"0": 9, "3": 144, "7": 128}.get(name.split(".")[1], 128)
        assert 0.8 / fan_in**0.5 < t.abs().max() <= 1 / fan_in**0.5, name


def test_no_parameter_repeats_the_draws_of_another(net):
    """Uniform numbers in [-1, 1] once each is divided by its bound: all of one stream, none twice."""
    beginnings = set()
    weights = net.init(5)
    for name, tensor in weights.items():
        fan_in = weights[name.replace("bias", "weight")][0].numel()
        first = [round(float(number), 4) for number in tensor.flatten()[:3] * fan_in**0.5]
        beginnings.add(tuple(first))
    assert len(beginnings) == len(weights) == 8


def test_parameters_of_other_layers_keep_their_value():
    extractor = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.Flatten())
    weights = DecoupledNet(extractor, nn.Linear(144, 2), (1, 8, 8)).init(0)
    assert weights["extractor.1.weight"].tolist() == [1.0] * 4


class OverTheBatch(nn.Module):
    """Subtracts the mean of the batch: no layer that a list of class names would hold."""

    def forward(self, x):
        return x - x.mean(0, keepdim=True)


class Counting(nn.Module):
    """Another output at every call."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x * self.calls


class NoiseInside(nn.Module):
    """Functional dropout: no submodule shows it."""

    def forward(self, x):
        return nn.functional.dropout(x, 0.3, self.training)


def spectrally_normalised(seed):
    """A convolution that divides its weights by an estimate of their norm, which begins at random: with this seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, 4, 1))


BAD_LAYERS = [
    nn.BatchNorm2d(4),
    nn.BatchNorm2d(4, track_running_stats=False),
    nn.Dropout(0.5),
    nn.Dropout2d(0.2),
    nn.AlphaDropout(0.2),
    nn.RReLU(),
    nn.FractionalMaxPool2d(2, output_size=4),
    StochasticDepth(0.2, "row"),
    OverTheBatch(),
    Counting(),
    NoiseInside(),
    spectrally_normalised(seed=0),
]


@pytest.mark.parametrize("bad", BAD_LAYERS, ids=lambda layer: type(layer).__name__)
def test_a_layer_that_looks_beyond_the_image_is_refused_by_name(bad):
    layers = nn.Sequential(nn.Conv2d(1, 4, 3), bad, nn.AdaptiveAvgPool2d(6), nn.Flatten())
    classifier = nn.Linear(144, 2)
    before = torch.random.get_rng_state()
    with pytest.raises(ValueError, match=r"output of extractor\.1[^ ]* \(\w+\) for an image changes .*GroupNorm"):
        DecoupledNet(layers, classifier, (1, 8, 8))
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_layer_that_remembers_earlier_weights_is_refused_whatever_it_remembers_at_first():
    """Spectral normalisation begins with a random direction: one in twenty-five had been the right one by chance."""
    for seed in range(30):
        layer = spectrally_normalised(seed)
        layers = nn.Sequential(nn.Conv2d(1, 4, 3), layer, nn.AdaptiveAvgPool2d(6), nn.Flatten())
        with pytest.raises(ValueError, match=r"output of extractor\.1[^ ]* \(\w+\) for an image changes"):
            DecoupledNet(layers, nn.Linear(144, 2), (1, 8, 8))


class DoubledInTraining(nn.Module):
    """The same at every call and for every image, and another in evaluation mode."""

    def forward(self, x):
        return 2 * x if self.training else x


class LonelyInTraining(nn.Module):
    """Another output for a batch of one, while training alone."""

    def forward(self, x):
        return 0 * x if self.training and len(x) == 1 else x


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        (Counting(), "from call to call"),
        (LonelyInTraining(), "with the other images of its batch"),
        (OverTheBatch(), "with the other images of its batch"),
        (DoubledInTraining(), "between training and evaluation mode"),
    ],
)
def test_a_refused_layer_is_told_what_its_output_changes_with(bad, what):
    layers = nn.Sequential(nn.Conv2d(1, 4, 3), bad, nn.Flatten())
    with pytest.raises(ValueError, match=f"for an image changes {what}; use GroupNorm"):
        DecoupledNet(layers, nn.Linear(144, 2), (1, 8, 8))


GOOD_LAYERS = [
    nn.GroupNorm(2, 4),
    nn.LayerNorm([4, 6, 6]),
    nn.InstanceNorm2d(4),
    nn.Softmax2d(),
    nn.Identity(),
    nn.ELU(),
]


@pytest.mark.parametrize("good", GOOD_LAYERS, ids=lambda layer: type(layer).__name__)
def test_a_layer_that_sees_one_image_is_taken(good):
    DecoupledNet(nn.Sequential(nn.Conv2d(1, 4, 3), good, nn.Flatten()), nn.Linear(144, 2), (1, 8, 8))


def test_a_layer_is_seen_through_even_where_its_initial_weights_are_zeros():
    closed = nn.Conv2d(4, 4, 1)
    nn.init.zeros_(closed.weight)
    with pytest.raises(ValueError, match="BatchNorm2d"):
        layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), closed, nn.Flatten())
        DecoupledNet(layers, nn.Linear(144, 2), (1, 8, 8))


def frozen_net():
    extractor = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 8))
    extractor[1].requires_grad_(False)
    return DecoupledNet(extractor, nn.Linear(8, 10), (1, 8, 8)), extractor[1]


@pytest.mark.parametrize("backend", ["loop", "threads", "vmap"])
@pytest.mark.parametrize("name", ["fedavg", "ditto", "fedrep", "fedecouple", "fedrod"])
def test_frozen_parameters_keep_their_values_and_stay_frozen(few, name, backend):
    net, layer = frozen_net()
    federation = split(few, 3, "iid")
    state = last(rounds(make(name, epochs=1), net, federation, rounds=2, backend=backend))
    for tensors in (state.server, *state.clients):
        for key, tensor in tensors.items():
            if key.endswith("extractor.1.weight"):
                assert torch.equal(tensor, layer.weight)
    moved = state.clients[0]["extractor.3.weight"]
    assert not torch.equal(moved, net.init(0)["extractor.3.weight"])


def test_a_net_whose_extractor_is_frozen_whole_trains_its_classifier_alone(few):
    net, _ = frozen_net()
    for parameter in net.extractor.parameters():
        parameter.requires_grad_(False)
    net = DecoupledNet(net.extractor, net.classifier, net.in_shape)
    for backend in ("loop", "vmap"):
        state = last(rounds(make("fedrep", epochs=2), net, split(few, 3, "iid"), rounds=1, backend=backend))
        assert torch.equal(state.clients[0]["extractor.3.weight"], net.init(0)["extractor.3.weight"])
        assert not torch.equal(state.clients[0]["classifier.weight"], net.init(0)["classifier.weight"])


def test_a_lazy_layer_without_a_size_is_refused():
    with pytest.raises(ValueError, match=r"extractor\.1\.weight has no size yet"):
        DecoupledNet(nn.Sequential(nn.Flatten(), nn.LazyLinear(4)), nn.Linear(4, 2), (1, 8, 8))


class LastOfEach(nn.Module):
    """One number for each image, without a dimension for features."""

    def forward(self, x):
        return x.flatten(1)[:, -1]


class FromOne(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, z):
        return z[:, None] * self.weight


def test_features_are_a_row_for_each_image_even_where_the_logits_are_right():
    with pytest.raises(ValueError, match=r"model must give \(B, d\), then \(B, C\), not \(2,\), then \(2, 3\)"):
        DecoupledNet(LastOfEach(), FromOne(), (1, 8, 8))


def test_structures_are_told_apart_and_drawn_weights_do_not_count():
    def net(width=16, value=1.0):
        norm = nn.GroupNorm(2, 4)
        nn.init.constant_(norm.weight, value)
        layers = nn.Sequential(nn.Conv2d(1, 4, 3), norm, nn.Flatten(), nn.Linear(144, width))
        return DecoupledNet(layers, nn.Linear(width, 2), (1, 8, 8))

    assert net().structure == net().structure  # another global draw, the same net
    assert re.fullmatch("[0-9a-f]{16}", net().structure)
    assert len({net().structure, net(width=17).structure, net(value=2.0).structure}) == 3


def test_nets_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"cannot take images of shape \(1, 9, 9\)"):
        DecoupledNet(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), nn.Linear(4, 2), (1, 9, 9))
    with pytest.raises(ValueError, match="must give"):
        DecoupledNet(nn.Conv2d(1, 4, 3), nn.Linear(6, 2), (1, 8, 8))
    with pytest.raises(ValueError, match="48x48 fits no built-in net"):
        net_for((3, 48, 48), 10)
    with pytest.raises(ValueError, match="net='cnn99' is unknown"):
        net_for((1, 8, 8), 10, "cnn99")


def test_weights_are_drawn_in_float32_whatever_they_then_are():
    """A run in float64 starts where the one in float32 does."""
    net = net_for((1, 8, 8), 10)
    single, double = net.init(7), net.init(7, torch.float64)
    assert all(double[name].dtype == torch.float64 for name in double)
    assert all(torch.equal(double[name], single[name].double()) for name in single)


def test_outputs_that_differ_by_a_hundredth_are_not_alike():
    one = torch.tensor([[1.0, -3.0], [0.0, 2.0]])
    assert alike(one * (1 + 1e-5), one) and not alike(one * 1.01, one) and not alike(one + 0.01, one)
    assert not alike(one[:1], one) and alike(one[:0], one[:0]) and not alike(one * 0 + 1e-3, one * 0)


def test_a_layer_that_depends_on_its_batch_by_a_hundredth_is_refused():
    class Slightly(nn.Module):
        def forward(self, x):
            return x + 0.01 * x.mean(0)

    extractor = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), Slightly())
    with pytest.raises(ValueError, match=r"extractor.2 \(Slightly\).* with the other images of its batch"):
        DecoupledNet(extractor, nn.Linear(8, 3), (1, 8, 8))
