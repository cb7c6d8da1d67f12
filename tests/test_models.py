import pytest
import torch
from helpers import same
from torch import nn

from fedecouple_lite import DecoupledNet, net_for


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


def test_parameters_of_other_layers_keep_their_value():
    extractor = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.Flatten())
    weights = DecoupledNet(extractor, nn.Linear(144, 2), (1, 8, 8)).init(0)
    assert weights["extractor.1.weight"].tolist() == [1.0] * 4


@pytest.mark.parametrize("bad", [nn.BatchNorm2d(4), nn.Dropout(0.5)])
def test_batchnorm_and_dropout_are_refused_with_the_reason(bad):
    with pytest.raises(ValueError, match=f"{type(bad).__name__}.*GroupNorm"):
        DecoupledNet(nn.Sequential(nn.Conv2d(1, 4, 3), bad, nn.Flatten()), nn.Linear(144, 2), (1, 8, 8))


def test_nets_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"cannot take images of shape \(1, 9, 9\)"):
        DecoupledNet(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), nn.Linear(4, 2), (1, 9, 9))
    with pytest.raises(ValueError, match="must give"):
        DecoupledNet(nn.Conv2d(1, 4, 3), nn.Linear(6, 2), (1, 8, 8))
    with pytest.raises(ValueError, match="48x48 fits no built-in net"):
        net_for((3, 48, 48), 10)
    with pytest.raises(ValueError, match="net='cnn99' is unknown"):
        net_for((1, 8, 8), 10, "cnn99")
