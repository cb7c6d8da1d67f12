"""Inversion of real uploads: what is exact is held to autograd and to the client's own round, what is an attack to the
images that it must recover; and attacks on nothing recover nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fedecouple_lite import METHODS, make, split
from fedecouple_lite.losses import class_means
from fedecouple_lite.security.inversion import (
    PixelRange,
    bias_gradient,
    class_mix_from,
    descend,
    first_round,
    in_round,
    inputs_of_linear_layers,
    invert,
    invert_prototypes,
    labels_from,
    likeness,
    mismatch,
    prototypes_in,
    simulate,
    total_variation,
    travelled,
    update_of,
)
from fedecouple_lite.security.messages import look

TRAVELLING = [name for name in METHODS if name != "local"]


@pytest.fixture(scope="module", autouse=True)
def one_core():
    """Thousands of steps of a net this small are faster on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def exact(digits):
    """Digits in float64, in which what is exact can be told from what is nearly so."""
    return digits.to(dtype=torch.float64)


@pytest.fixture(scope="module")
def pixel_range(digits):
    return PixelRange.of(digits)


def images(data, *index):
    return data.images(torch.tensor(index)), data.y[torch.tensor(index)]


def drawn(data, seed):
    """One image, the same for the same seed."""
    index = int(np.random.default_rng(seed).choice(len(data.y)))
    return images(data, index)


# --- What the attacker computes exactly ---


@pytest.mark.parametrize("name", TRAVELLING)
def test_the_simulated_round_of_the_true_images_is_the_clients(exact, net, name):
    """Seven images, three batches, two epochs: every tensor of the upload."""
    x, y = images(exact, *range(7))
    seen = first_round(make(name, epochs=2, batch_size=3), net, x, y)
    by_attacker = simulate(seen, x, y).upload
    assert by_attacker.keys() == seen.upload.keys()
    for tensor in seen.upload:
        assert torch.allclose(by_attacker[tensor], seen.upload[tensor], rtol=1e-9, atol=1e-11), tensor


@pytest.mark.parametrize(
    ("name", "is_known"), [("fedavg", True), ("fedecouple", True), ("fedrep", False), ("fedper", False)]
)
def test_later_the_attacker_knows_fedecouples_classifier_and_not_fedreps(exact, net, name, is_known):
    """In round 2 a client starts from what it kept: from what was uploaded, for all but the private classifiers."""
    federation = split(exact, clients=3, partition="iid", per_client=12, seed=1)
    seen = in_round(look(make(name, epochs=1), net, federation), 2)
    x, y = images(exact, *federation.train[0].tolist())
    by_attacker = simulate(seen, x, y).upload
    differences = [float((by_attacker[n] - tensor).detach().abs().max()) for n, tensor in seen.upload.items()]
    assert (max(differences) < 1e-10) == is_known
    assert max(differences) < 1e-10 or max(differences) > 1e-4


def test_the_update_of_one_step_is_the_gradient(exact, net):
    x, y = images(exact, 3, 5, 8)
    seen = first_round(make("fedavg", epochs=1), net, x, y)
    weights = {name: tensor.clone().requires_grad_() for name, tensor in seen.download.items()}
    F.cross_entropy(net.logits(weights, x), y).backward()
    for name, moved in update_of(seen).items():
        gradient = weights[name].grad + 5e-4 * seen.download[name]
        assert torch.allclose(moved, 0.1 * gradient, atol=1e-12)
    assert torch.allclose(bias_gradient(seen, 3), weights["classifier.bias"].grad, atol=1e-12)


def test_how_far_weights_travel_with_momentum():
    """By hand: velocities 1, 1.5, 1.75; without momentum one more a step."""
    assert travelled(3, 0.5) == 1 + 1.5 + 1.75
    assert travelled(4, 0.0) == 4
    assert travelled(0, 0.9) == 0


def test_a_linear_layers_update_holds_its_input(exact, net):
    """One image, one step: the extractor's last layer and the classifier, whose input are the features."""
    x, y = images(exact, 11)
    seen = first_round(make("fedavg", epochs=1, weight_decay=0.0), net, x, y)
    of_extractor, of_classifier = inputs_of_linear_layers(update_of(seen))
    convolutions = {n: t for n, t in seen.download.items() if n.startswith("extractor.")}
    maps = torch.func.functional_call(
        net.extractor[:-2], {n.removeprefix("extractor."): t for n, t in convolutions.items() if ".7." not in n}, (x,)
    )
    assert torch.allclose(of_extractor, maps[0], atol=1e-9)
    assert torch.allclose(of_classifier, net.features(seen.download, x)[0], atol=1e-9)


# --- Labels ---


@pytest.mark.parametrize("name", ["fedavg", "fedprox", "ditto", "fedpac", "fedecouple", "lg_fedavg"])
@pytest.mark.parametrize("epochs", [1, 5])
def test_the_label_of_one_image_is_read_off(digits, net, name, epochs):
    for index in range(0, 90, 30):
        x, y = images(digits, index)
        seen = first_round(make(name, epochs=epochs), net, x, y, seed=index)
        assert labels_from(seen, 1).tolist() == y.tolist()


@pytest.mark.parametrize("name", ["fedavg", "fedpac", "fedecouple"])
def test_the_labels_of_a_batch_are_read_off(digits, net, name):
    """Eight images, one of the classes three times."""
    for seed in range(3):
        index = np.random.default_rng(seed).choice(len(digits.y), 6, replace=False).tolist()
        x, y = images(digits, *index, index[0], index[0])
        seen = first_round(make(name, epochs=1), net, x, y, seed=seed)
        found = labels_from(seen, 8).bincount(minlength=10)
        assert (found - y.bincount(minlength=10)).abs().sum() <= 2  # at most one of eight wrong


def distance_of_mixes(a, b):
    """Total variation: the share that is in the wrong class, from 0 to 1."""
    return float((a - b).abs().sum() / 2)


@pytest.mark.parametrize("name", ["fedavg", "fedecouple"])
def test_the_class_mix_of_a_whole_client_leaks_through_its_classifier(digits, net, name):
    """Nobody counts classes here, and still: nearer to the truth than the classes' overall shares, in both rounds."""
    federation = split(digits, clients=3, partition="dirichlet", alpha=0.3, seed=2, per_client=60)
    truth = torch.from_numpy(federation.label_counts()).float()
    overall = torch.full((10,), 0.1)
    looks = [look(make(name, epochs=1), net, federation, client=client) for client in range(3)]
    for t in (1, 2):
        distances, of_overall = [], []
        for client in range(3):
            seen = in_round(looks[client], t)
            mix = truth[client] / truth[client].sum()
            distances.append(distance_of_mixes(class_mix_from(seen, len(federation.train[client])), mix))
            of_overall.append(distance_of_mixes(overall, mix))
        assert np.mean(distances) < 0.5 * np.mean(of_overall), (t, np.mean(distances), np.mean(of_overall))


@pytest.mark.parametrize("name", ["fedrep", "fedper", "fedbabu"])
def test_without_a_classifier_in_the_upload_there_is_no_label_to_read_off(digits, net, name):
    x, y = images(digits, 0)
    seen = first_round(make(name, epochs=1), net, x, y)
    with pytest.raises(ValueError, match=r"upload holds no classifier\.bias, only extractor"):
        labels_from(seen, 1)


# --- Objectives, by hand ---


def test_mismatches_by_hand():
    target = {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([[2.0]])}
    for loss in ("layers", "cosine", "l2"):
        assert mismatch(target, target, loss).item() == pytest.approx(0, abs=1e-6)
    other = {"a": torch.tensor([6.0, 8.0]), "b": torch.tensor([[-2.0]])}
    assert mismatch(other, target, "layers").item() == pytest.approx(1)  # cosines 1 and -1
    # (18 + 32 - 4) / (sqrt(104) sqrt(29)); and (25 + 16) / 29
    assert mismatch(other, target, "cosine").item() == pytest.approx(1 - 46 / (104 * 29) ** 0.5)
    assert mismatch(other, target, "l2").item() == pytest.approx(41 / 29)


def test_total_variation_by_hand():
    flat = torch.full((1, 1, 3, 3), 0.7)
    stripes = torch.tensor([[0.0, 1.0, 0.0]] * 3).view(1, 1, 3, 3)
    assert total_variation(torch.cat([flat, stripes])).tolist() == pytest.approx([0, 1])
    assert total_variation(stripes.transpose(2, 3)).tolist() == pytest.approx([1])


def test_descent_finds_the_nearest_pixels_in_the_range():
    wanted = torch.tensor([[0.3, 1.7], [-0.5, 0.9]])
    found = descend(lambda pixels: (pixels - wanted).square().sum(), torch.full((2, 2), 0.5), 200, 0.1)
    assert torch.allclose(found, wanted.clamp(0, 1), atol=1e-2)


def test_pixels_and_normalised_images_are_each_others_inverse(digits, pixel_range):
    x, _ = images(digits, 0, 1, 2)
    pixels = pixel_range.pixels(x)
    assert torch.allclose(pixels, digits.x[:3] / 16, atol=1e-6)
    assert torch.allclose(pixel_range.normalised(pixels), x, atol=1e-5)


# --- Likeness ---


def test_likeness_finds_the_order_and_its_figures_are_known(digits):
    truth = digits.x[:5].float() / 16
    order = torch.tensor([3, 0, 4, 1, 2])
    found = likeness(truth[order], truth)
    assert np.isinf(found.psnr).all() and found.ssim == pytest.approx(1)
    assert order[found.order].tolist() == [0, 1, 2, 3, 4]
    darker = likeness(truth.clamp(0.2, 0.8) - 0.1, truth.clamp(0.2, 0.8))
    assert darker.psnr == pytest.approx(20)  # an error of 0.1 everywhere: -10 log10 0.01
    assert (darker.ssim < 1).all()


@pytest.mark.parametrize(
    ("pixels", "truth", "message"),
    [
        (torch.zeros(1, 1, 8, 8), torch.zeros(2, 1, 8, 8), r"pixels=\(1, 1, 8, 8\) must be of shape"),
        (torch.zeros(0, 1, 8, 8), torch.zeros(0, 1, 8, 8), r"pixels=\(0, 1, 8, 8\) must be of shape"),
        (torch.zeros(1, 1, 6, 8), torch.zeros(1, 1, 6, 8), "truth=.* must be of images at least 7 pixels"),
        (torch.full((1, 1, 8, 8), 2.0), torch.zeros(1, 1, 8, 8), r"pixels=\(2.0, 2.0\) must be in \[0, 1\]"),
        (torch.full((1, 1, 8, 8), torch.nan), torch.zeros(1, 1, 8, 8), r"pixels=\(nan, nan\) must be in"),
    ],
)
def test_what_cannot_be_compared_is_named(pixels, truth, message):
    with pytest.raises(ValueError, match=message):
        likeness(pixels, truth)


# --- The attack ---


QUICKLY = {"iterations": 8, "restarts": 1}


def test_the_same_seed_gives_the_same_images_and_more_restarts_no_worse_ones(digits, net, pixel_range):
    x, y = images(digits, 4)
    seen = first_round(make("fedrep", epochs=1), net, x, y)
    once = invert(seen, y, pixel_range, **QUICKLY, seed=1)
    again = invert(seen, y, pixel_range, **QUICKLY, seed=1)
    other = invert(seen, y, pixel_range, **QUICKLY, seed=2)
    assert torch.equal(once.pixels, again.pixels) and once.objective == again.objective
    assert not torch.equal(once.pixels, other.pixels)
    best = invert(seen, y, pixel_range, iterations=8, restarts=4, seed=1)
    assert best.objective <= once.objective
    assert best.pixels.shape == (1, 1, 8, 8) and best.pixels.min() >= 0 and best.pixels.max() <= 1


def test_an_attack_changes_nothing_that_it_is_given(digits, net, pixel_range):
    x, y = images(digits, 4)
    seen = first_round(make("fedecouple", epochs=1), net, x, y)
    before = {n: tensor.clone() for n, tensor in (seen.client | seen.upload).items()}
    invert(seen, y, pixel_range, **QUICKLY)
    after = seen.client | seen.upload
    assert all(torch.equal(after[n], before[n]) and not after[n].requires_grad for n in before)


def test_where_nothing_travels_there_is_nothing_to_invert(digits, net, pixel_range):
    x, y = images(digits, 4)
    seen = first_round(make("local", epochs=1), net, x, y)
    with pytest.raises(ValueError, match="upload holds no weights to attack, only nothing"):
        invert(seen, y, pixel_range)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "cosin"}, "loss='cosin' is unknown; did you mean 'cosine'"),
        ({"tv": -1}, "tv=-1 must be a number >= 0"),
        ({"input_match": -0.1}, "input_match=-0.1 must be a number >= 0"),
        ({"iterations": 0}, "iterations=0 must be a whole number >= 1"),
        ({"restarts": 0}, "restarts=0 must be a whole number >= 1"),
        ({"step": 0}, "step=0 must be a number above 0"),
        ({"seed": -1}, "seed=-1 must be a whole number from 0"),
        ({"y": torch.tensor([10])}, r"y=\[10\] must be labels from 0 to 9"),
        ({"y": torch.zeros(0, dtype=torch.int64)}, r"y=\(0,\) must be labels"),
        ({"y": [1]}, r"y=\[1\] must be a tensor of whole numbers"),
        ({"y": torch.ones(1)}, r"y=tensor\(\[1\.\]\) must be a tensor of whole numbers"),
    ],
)
def test_an_argument_that_cannot_be_is_named(digits, net, pixel_range, options, message):
    x, y = images(digits, 4)
    seen = first_round(make("fedavg", epochs=1), net, x, y)
    with pytest.raises(ValueError, match=message):
        invert(seen, **{"y": y, "pixel_range": pixel_range} | options)


def test_an_upload_that_is_not_finite_tells_nothing(digits, net, pixel_range):
    x, y = images(digits, 4)
    seen = first_round(make("fedavg", epochs=1), net, x, y)
    broken = replace(seen, upload={**seen.upload, "classifier.bias": torch.full((10,), torch.nan)})
    for call in (
        lambda: invert(broken, y, pixel_range),
        lambda: labels_from(broken, 1),
        lambda: labels_from(broken, 3),
    ):
        with pytest.raises(ValueError, match=r"upload='not finite in classifier\.bias' must be made of finite numbers"):
            call()
    with pytest.raises(ValueError, match="prototypes='not finite' must be"):
        invert_prototypes(net, seen.upload, torch.full((1, 128), torch.nan), pixel_range)


def test_counts_and_rounds_that_cannot_be_are_named(digits, net):
    x, y = images(digits, 4)
    seen = first_round(make("fedavg", epochs=1), net, x, y)
    for call in (labels_from, class_mix_from):
        with pytest.raises(ValueError, match="images=0 must be a whole number >= 1"):
            call(seen, 0)
    with pytest.raises(ValueError, match="must be one that takes a step on its classifier"):
        labels_from(replace(seen, method=make("fedavg", epochs=0)), 1)
    federation = split(digits, clients=2, partition="iid", per_client=10)
    one_round = look(make("fedavg", epochs=1), net, federation, rounds=1)
    for t in (0, 2):
        with pytest.raises(ValueError, match=f"t={t} must be a whole number from 1 to 1"):
            in_round(one_round, t)


# --- Prototypes ---


def five_classes(digits, each, seed=0):
    """Images of the classes 0 to 4, so many of each."""
    rng = np.random.default_rng(seed)
    index = [rng.choice((digits.y == c).nonzero()[:, 0].numpy(), each, replace=False) for c in range(5)]
    return images(digits, *np.concatenate(index).tolist())


def test_the_prototypes_are_the_clients_class_means(digits, net):
    x, y = five_classes(digits, 3)
    seen = first_round(make("fedpac", epochs=1), net, x, y)
    classes, prototypes = prototypes_in(seen.upload)
    means, _ = class_means(net.features(seen.upload, x), y, 10)
    assert classes.tolist() == [0, 1, 2, 3, 4]
    assert torch.allclose(prototypes, means[:5], atol=1e-4)


@pytest.mark.parametrize("name", ["fedecouple", "fedavg", "fedrep"])
def test_other_uploads_hold_no_prototypes_to_invert(digits, net, name):
    x, y = five_classes(digits, 1)
    with pytest.raises(ValueError, match=r"upload holds no prototypes\.means, .* nothing to invert"):
        prototypes_in(first_round(make(name, epochs=1), net, x, y).upload)


def test_prototypes_of_one_image_each_give_the_images_away(digits, net, pixel_range):
    """Recovered and true images, five each: every recovered one is most like its own class's."""
    x, y = five_classes(digits, 1)
    seen = first_round(make("fedpac", epochs=5), net, x, y)
    _, prototypes = prototypes_in(seen.upload)
    found = invert_prototypes(net, seen.upload, prototypes, pixel_range)
    truth = pixel_range.pixels(x)
    matched = likeness(found.pixels, truth)
    assert matched.order.tolist() == [0, 1, 2, 3, 4]
    assert matched.ssim.mean() > 0.6
    # Their features are the prototypes, which those of noise are not.
    away = net.features(seen.upload, pixel_range.normalised(found.pixels)) - prototypes
    assert (away.norm(dim=1) / prototypes.norm(dim=1)).max() < 0.2


def test_prototypes_that_do_not_fit_the_net_are_named(digits, net, pixel_range):
    for shape in ((2, 64), (0, 128), (128,)):
        with pytest.raises(ValueError, match=r"prototypes=\(.*\) must be \(P, 128\), of at least one class"):
            invert_prototypes(net, net.init(0), torch.zeros(shape), pixel_range)
