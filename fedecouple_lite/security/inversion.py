"""Inversion: what a curious server can make of an upload, labels first, then images.

The server knows the method, the weights that it sent and those that came back, and so by how much they moved. For one
image and one step that is the image's gradient. For more steps it is not; but the attacker can run the client's round
itself, on made-up images, and change these until the weights move as the client's did. That is what `invert` does, for
every method by the method's own phases.

- Zhu, Liu, Han: Deep Leakage from Gradients. NeurIPS 2019: the loss "l2".
- Zhao, Mopuri, Bilen: iDLG: Improved Deep Leakage from Gradients. 2020: the label is read off the classifier.
- Geiping, Bauermeister, Droege, Moeller: Inverting Gradients. NeurIPS 2020: the loss "cosine", total variation,
  simulated local steps, and that a linear layer's gradient holds its input (their proposition 3.1).
- Wainakh et al.: User-Level Label Leakage from Gradients in Federated Learning. PETS 2022: the class mix of many
  images.

Ours: the loss "layers", a mean of cosines over tensors, and that the input which a linear layer's update holds is
matched, too. For one digit of 8x8 pixels they seldom fail altogether, where the others often do; for a batch
loss="cosine", input_match=0 does better, and for one MNIST image loss="cosine".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..client import LocalData, OneClient, Trained, client_round, first_not_finite, run_phases, trainable
from ..data import Dataset
from ..errors import SEED, is_number, is_seed, is_whole_number, nearest, require
from ..methods import FedAvg
from ..models import DecoupledNet, one_thread
from ..phases import Train
from ..tensors import CLASSIFIER, EXTRACTOR, Tensors, flat
from .messages import COUNTS, Exchange, in_order

OF_LABELS = 10**6  # a part of an attack, beyond all restarts
LOSSES = ("layers", "cosine", "l2")
BIAS = "classifier.bias"
MEANS = "prototypes.means"
TINY = 1e-12
ATTACK = 9  # what a stream of random numbers is for, beside the engine's purposes


class PixelRange(NamedTuple):
    """What black and white are for the net, (C, 1, 1) each: attackers know in what range pixels lie."""

    black: Tensor
    white: Tensor

    @classmethod
    def of(cls, data: Dataset) -> PixelRange:
        """From the least to the largest pixel of the data set, normalised as its images are."""
        darkest = data.x.min().to(data.mean.dtype)
        brightest = data.x.max().to(data.mean.dtype)
        return cls((darkest - data.mean) / data.std, (brightest - data.mean) / data.std)

    def normalised(self, pixels: Tensor) -> Tensor:
        """Pixels in [0, 1] as the net wants them, (n, C, H, W) both."""
        return self.black + pixels * (self.white - self.black)

    def pixels(self, images: Tensor) -> Tensor:
        """The net's images as pixels in [0, 1], (n, C, H, W) both."""
        return (images - self.black) / (self.white - self.black)


@dataclass(frozen=True, eq=False)
class Observation:
    """What the attacker knows of one client's round.

    client: the client's tensors before the round, as far as the attacker knows or guesses them. In round 1 these are
    everybody's first weights; later what the client uploaded last takes their place. download, upload: the messages.
    """

    method: FedAvg
    net: DecoupledNet
    client: Tensors
    download: Tensors
    upload: Tensors


class Inverted(NamedTuple):
    """pixels: images (n, C, H, W) in [0, 1]. objective: what the attack minimised, lower is a better match."""

    pixels: Tensor
    objective: float


class Likeness(NamedTuple):
    """How alike images are: psnr (n,) in dB, ssim (n,) at most 1, higher is more alike. order: (n,), which of the
    recovered images stands for each true one."""

    psnr: np.ndarray
    ssim: np.ndarray
    order: np.ndarray


def observe(
    method: FedAvg,
    net: DecoupledNet,
    client: Tensors,
    download: Tensors,
    data: LocalData,
    known: Tensors | None = None,
) -> Observation:
    """Run the client's real round, and keep what an attacker sees of it.

    client: what the client has before the round. known: what the attacker takes that to be; None is the same.
    """
    upload = client_round(method, net, client, download, data).upload
    return Observation(method, net, client if known is None else known, download, upload)


def first_round(
    method: FedAvg,
    net: DecoupledNet,
    x: Tensor,
    y: Tensor,
    seed: int = 0,
) -> Observation:
    """The first round of a client with images x (n, *in_shape) and labels y (n,), as the server sees it: the first
    weights are everybody's, so nothing is hidden from it but the images, and what method keeps private."""
    weights = net.init(seed, x.dtype, x.device)
    download = method.send(method.init_server(weights), 0)
    client = method.join(method.init(weights), download)
    return observe(method, net, client, download, in_order(x, y, method.batch_size))


def in_round(look: Exchange, t: int) -> Observation:
    """What the server sees of round t, from 1 on, of a client that `messages.look` followed.

    Of the client's tensors before that round it takes the first ones, which all share, and what was uploaded last. So
    it knows FedeCouple's personal classifier, and of FedRep's only the first weights.
    """
    last = len(look.uploads)
    require(is_whole_number(t) and 1 <= t <= last, "t", t, f"a whole number from 1 to {last}")
    uploaded_last = look.uploads[t - 2] if t > 1 else {}
    guess = {**look.before, **uploaded_last}
    return Observation(look.method, look.net, guess, look.downloads[t - 1], look.uploads[t - 1])


def update_of(seen: Observation) -> Tensors:
    """Weights before minus weights after, by name, of the parts of the model that were uploaded and were known before.

    ValueError where there is none: nothing travels, nothing can be inverted.
    """
    before = seen.method.receive(seen.client, seen.download)
    update = {}
    for name, tensor in seen.upload.items():
        if name.startswith((EXTRACTOR, CLASSIFIER)) and name in before:
            update[name] = before[name] - tensor
    broken = first_not_finite(update)
    require(broken is None, "upload", f"not finite in {broken}", "made of finite numbers")
    if not update:
        raise ValueError(f"upload holds no weights to attack, only {', '.join(seen.upload) or 'nothing'}")
    return update


# --- Labels ---


def steps_on_classifier(method: FedAvg, images: int) -> tuple[int, float]:
    """How many gradient steps a client with so many images takes on its classifier in a round, and their size."""
    steps = 0
    lr = method.lr
    for phase in method.phases():
        if isinstance(phase, Train) and CLASSIFIER in phase.prefixes:
            batches = -(-images // method.batch_size)  # rounded up
            steps += phase.epochs * batches * len(phase.losses)
            lr = phase.step_size(method.lr)
    return steps, lr


def travelled(steps: int, momentum: float) -> float:
    """How many times lr x gradient the weights move in so many steps with momentum, were the gradient always the same.

    Examples
    --------
    >>> travelled(1, 0.5), travelled(2, 0.5)  # the second step is 1 + 0.5 times the gradient
    (1.0, 2.5)
    """
    total = 0.0
    velocity = 0.0
    for _ in range(steps):
        velocity = momentum * velocity + 1
        total += velocity
    return total


def bias_gradient(seen: Observation, images: int) -> Tensor:
    """The classifier's mean bias gradient (C,) over the client's round, from how far the bias moved.

    Exact for one step, weight decay included; for more a mean over steps, weighted by what momentum makes of each.
    ValueError where the upload has no classifier with a bias, or the method takes no step on it.
    """
    update = update_of(seen)
    if BIAS not in update:
        raise ValueError(f"upload holds no {BIAS}, only {', '.join(seen.upload)}: no labels to read off")
    steps, lr = steps_on_classifier(seen.method, images)
    moved = lr * travelled(steps, seen.method.momentum)
    require(moved > 0, "method", seen.method, "one that takes a step on its classifier")
    before = seen.method.receive(seen.client, seen.download)[BIAS]
    return update[BIAS] / moved - seen.method.weight_decay * before


def class_mix_from(seen: Observation, images: int, guesses: int = 64, seed: int = 0) -> Tensor:
    """The share of each class among the client's images, (C,), estimated from the classifier's bias.

    Its gradient is the mean of softmax - one-hot label over images. The attacker takes the softmax that the net has
    before the round on noise for the one it has on images, and so has the labels (Wainakh et al. 2022 do so in spirit).
    images: how many the client has, as every server is told. After many steps the softmax is another one, and the
    estimate worse.
    """
    check_count("images", images)
    gradient = bias_gradient(seen, images)
    rng = torch.Generator().manual_seed(keyed(seed, OF_LABELS))
    noise = torch.randn(guesses, *seen.net.in_shape, generator=rng).to(gradient)
    before = seen.method.receive(seen.client, seen.download)
    expected = seen.net.logits(before, noise).softmax(1).mean(0)  # (C,)
    shares = (expected - gradient).clamp(min=0)
    return shares / shares.sum().clamp(min=TINY)


def labels_from(seen: Observation, images: int) -> Tensor:
    """The labels of the client's images, (images,), in order of classes.

    Of one image exactly (iDLG): softmax - one-hot is negative for its class alone. Of more, whole numbers nearest to
    the class mix.
    """
    check_count("images", images)
    if images == 1:
        return bias_gradient(seen, images).argmin()[None]
    wanted = class_mix_from(seen, images) * images  # (C,)
    counts = wanted.floor()
    left = images - int(counts.sum())
    most_wanting = (wanted - counts).argsort(descending=True)
    counts[most_wanting[:left]] += 1
    classes = torch.arange(len(counts), device=counts.device)
    return torch.repeat_interleave(classes, counts.to(torch.int64))


# --- Images ---


class Unrolled(OneClient):
    """One client's round of which gradients can be taken: with respect to its images."""

    def features(self, client: Tensors) -> Tensor:
        return self.net.features(client, self.images)

    def train(self, phase: Train, client: Tensors, inputs: Tensor) -> Trained:
        """SGD as `client.sgd` does it, with new tensors in place of changed ones."""
        method = self.method
        lr = phase.step_size(method.lr)
        weights = {}
        for name, tensor in trainable(self.net, client, phase.prefixes).items():
            weights[name] = tensor if tensor.requires_grad else tensor.detach().requires_grad_()
        velocities = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        steps = 0
        for index in self.data.batches(phase.epochs):
            for loss_of in phase.losses:
                now = {**client, **weights}
                x = inputs[index]
                y = self.data.y[index]
                loss = loss_of(self.net, now, self.download, x, y).mean()
                gradients = torch.autograd.grad(
                    loss, list(weights.values()), create_graph=True, allow_unused=True, materialize_grads=True
                )
                for name, gradient in zip(list(weights), gradients, strict=True):
                    push = gradient + method.weight_decay * weights[name]
                    velocities[name] = method.momentum * velocities[name] + push
                    weights[name] = weights[name] - lr * velocities[name]
                steps += 1
        return Trained(weights, inputs.new_zeros(()), torch.tensor(steps))


def simulate(seen: Observation, x: Tensor, y: Tensor) -> Observation:
    """The same observation, had the client had these images (n, *in_shape) and labels (n,), batches in order."""
    data = in_order(x, y, seen.method.batch_size)
    received = seen.method.receive(seen.client, seen.download)
    trainer = Unrolled(seen.method, seen.net, seen.download, data)
    trained = run_phases(seen.method.phases(), received, trainer)
    return Observation(seen.method, seen.net, seen.client, seen.download, seen.method.upload(trained.tensors))


def inputs_of_linear_layers(update: Tensors) -> list[Tensor]:
    """What went into each linear layer with a bias, (inputs,) each, as its update holds it.

    A row of the weight's gradient is the input times that row's bias gradient; this is the least-squares solution over
    rows. Exact for one image and one step; else a mixture over images and steps.
    """
    inputs = []
    for name, moved in update.items():
        bias = update.get(name.removesuffix("weight") + "bias")
        if moved.ndim == 2 and bias is not None and bias.ndim == 1:
            inputs.append(bias @ moved / (bias.square().sum() + TINY))
    return inputs


def mismatch(update: Tensors, target: Tensors, loss: str) -> Tensor:
    """How unlike two updates with equal names are, a scalar >= 0.

    "layers": 1 - cosine, the mean over tensors. "cosine": 1 - cosine of all as one vector. "l2": the squared distance,
    relative to the target's length.
    """
    if loss == "layers":
        distances = [1 - cosine(update[name], tensor) for name, tensor in target.items()]
        return torch.stack(distances).mean()
    moved = flat({name: update[name] for name in target})  # (weights,)
    wanted = flat(target)
    return 1 - cosine(moved, wanted) if loss == "cosine" else relative_distance(moved, wanted)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """The cosine of two tensors of one shape, taken as vectors."""
    return (a * b).sum() / (a.norm() * b.norm() + TINY)


def relative_distance(a: Tensor, b: Tensor) -> Tensor:
    """||a - b||^2 / ||b||^2."""
    return (a - b).square().sum() / (b.square().sum() + TINY)


def total_variation(x: Tensor) -> Tensor:
    """The mean difference of neighbouring pixels of each image (n, C, H, W), (n,): 0 for one of one colour (Rudin et
    al. 1992)."""
    of_each = (1, 2, 3)  # all dimensions but the first
    down = x[..., 1:, :] - x[..., :-1, :]
    across = x[..., :, 1:] - x[..., :, :-1]
    return down.abs().mean(of_each) + across.abs().mean(of_each)


def invert(
    seen: Observation,
    y: Tensor,
    pixel_range: PixelRange,
    *,
    loss: str = "layers",
    tv: float = 1e-3,
    input_match: float = 0.3,
    iterations: int = 300,
    step: float = 0.4,
    restarts: int = 2,
    seed: int = 0,
) -> Inverted:
    """Images whose round would have moved the weights as the client's did.

    y: the labels (n,), say from `labels_from`; they also say how many images there are. loss: "layers", "cosine" or
    "l2" (see `mismatch`). tv: >= 0, weight of total variation. input_match: >= 0, weight of the mismatch of what goes
    into linear layers. iterations, step: of Adam on pixels, which stay in [0, 1]. restarts: >= 1, from different noise;
    the one whose own objective is lowest is returned, as nobody can compare with the truth. seed: of the noise.

    Batches are taken to be in order: with one batch an epoch it does not matter. ValueError for an argument out of its
    range, and where the upload holds no weights.
    """
    if loss not in LOSSES:
        raise ValueError(f"loss={loss!r} is unknown; {nearest(loss, LOSSES)}")
    are_labels = isinstance(y, Tensor) and y.dtype == torch.int64
    require(are_labels, "y", y, "a tensor of whole numbers (int64)")
    require(y.ndim == 1 and len(y) > 0, "y", tuple(y.shape), "labels (n,), at least one")
    known = bool(((y >= 0) & (y < seen.net.classes)).all())
    require(known, "y", y.tolist(), f"labels from 0 to {seen.net.classes - 1}")
    require(is_number(input_match) and input_match >= 0, "input_match", input_match, "a number >= 0")
    check_effort(tv, iterations, step, restarts, seed)
    target = update_of(seen)
    target_inputs = inputs_of_linear_layers(target)

    def objective(pixels: Tensor) -> Tensor:
        update = update_of(simulate(seen, pixel_range.normalised(pixels), y))
        distance = mismatch(update, target, loss)
        if input_match:
            for layer, of_target in zip(inputs_of_linear_layers(update), target_inputs, strict=True):
                distance = distance + input_match * relative_distance(layer, of_target)
        return distance + tv * total_variation(pixels).mean()

    shape = (len(y), *seen.net.in_shape)
    best = Inverted(torch.zeros(shape).to(pixel_range.black), float("inf"))
    for restart in range(restarts):
        start = noise(shape, pixel_range.black, seed, restart)
        pixels = descend(objective, start, iterations, step)
        value = float(objective(pixels).detach())
        if value < best.objective:
            best = Inverted(pixels, value)
    return best


def descend(objective: Callable[[Tensor], Tensor], start: Tensor, iterations: int, step: float) -> Tensor:
    """Pixels in [0, 1] that make the objective, a scalar, small: by Adam from `start`, its steps smaller and smaller
    from 0.4, 0.65 and 0.85 of the iterations on."""
    pixels = start.clone().requires_grad_()
    adam = torch.optim.Adam([pixels], step)
    milestones = [int(share * iterations) for share in (0.4, 0.65, 0.85)]
    schedule = torch.optim.lr_scheduler.MultiStepLR(adam, milestones, gamma=0.3)
    with one_thread():
        for _ in range(iterations):
            (pixels.grad,) = torch.autograd.grad(objective(pixels), pixels)
            adam.step()
            schedule.step()
            with torch.no_grad():
                pixels.clamp_(0, 1)
    return pixels.detach()


def noise(shape: tuple[int, ...], like: Tensor, seed: int, restart: int) -> Tensor:
    """Dark noise, uniform in [0, 0.5), of this shape, drawn with (seed, restart)."""
    generator = torch.Generator().manual_seed(keyed(seed, restart))
    return 0.5 * torch.rand(shape, generator=generator).to(like)


def keyed(seed: int, part: int) -> int:
    """A seed of one part of an attack."""
    return int(np.random.SeedSequence([seed, ATTACK, part]).generate_state(1)[0])


def check_count(name: str, count: int) -> None:
    """Raise ValueError unless it is a whole number >= 1."""
    require(is_whole_number(count) and count >= 1, name, count, "a whole number >= 1")


def check_effort(tv: float, iterations: int, step: float, restarts: int, seed: int) -> None:
    """Raise ValueError, naming the argument, where an attack cannot run with it."""
    require(is_number(tv) and tv >= 0, "tv", tv, "a number >= 0")
    require(is_number(step) and step > 0, "step", step, "a number above 0")
    check_count("iterations", iterations)
    check_count("restarts", restarts)
    require(is_seed(seed), "seed", seed, SEED)


# --- Prototypes ---


def prototypes_in(upload: Tensors) -> tuple[Tensor, Tensor]:
    """The class means that an upload holds: the classes with images (P,), and their mean features (P, d).

    ValueError where it holds none: FedPAC's does, FedeCouple's anchors stay with the client.
    """
    if MEANS not in upload or COUNTS not in upload:
        raise ValueError(f"upload holds no {MEANS}, only {', '.join(upload) or 'nothing'}: there is nothing to invert")
    classes = (upload[COUNTS] > 0).nonzero()[:, 0]
    return classes, upload[MEANS][classes]


def invert_prototypes(
    net: DecoupledNet,
    tensors: Tensors,
    prototypes: Tensor,
    pixel_range: PixelRange,
    *,
    tv: float = 0.03,
    iterations: int = 300,
    step: float = 0.4,
    restarts: int = 4,
    seed: int = 0,
) -> Inverted:
    """An image for each prototype, (P, C, H, W), whose features are the prototype (Mahendran and Vedaldi 2015).

    tensors: with the extractor that made the prototypes (P, d), which FedPAC's clients upload, too. Of a class with one
    image the prototype is that image's features; of more, an image of the class as the net sees it. The rest is as in
    `invert`; objective is the mean over prototypes.
    """
    shape = tuple(prototypes.shape)
    fits = prototypes.ndim == 2 and len(prototypes) > 0 and shape[1] == net.features_dim
    require(fits, "prototypes", shape, f"(P, {net.features_dim}), of at least one class")
    finite = bool(torch.isfinite(prototypes).all())
    require(finite, "prototypes", "not finite", "made of finite numbers")
    check_effort(tv, iterations, step, restarts, seed)

    def of_each(pixels: Tensor) -> Tensor:
        features = net.features(tensors, pixel_range.normalised(pixels))  # (P, d)
        square = (features - prototypes).square().sum(1)
        length = prototypes.square().sum(1)
        return square / (length + TINY) + tv * total_variation(pixels)

    images = (len(prototypes), *net.in_shape)
    best = torch.zeros(images).to(prototypes)
    lowest = torch.full((len(prototypes),), float("inf")).to(prototypes)
    for restart in range(restarts):
        start = noise(images, prototypes, seed, restart)
        pixels = descend(lambda pixels: of_each(pixels).sum(), start, iterations, step)
        values = of_each(pixels).detach()  # (P,)
        better = values < lowest
        best[better] = pixels[better]
        lowest = torch.minimum(lowest, values)
    return Inverted(best, float(lowest.mean()))


# --- Judging: only here the truth is known ---


def likeness(pixels: Tensor, truth: Tensor) -> Likeness:
    """How alike recovered and true images are, (n, C, H, W) both, in [0, 1].

    The order in a batch cannot be recovered: each true image gets the recovered one that is its own in the matching of
    least squared error. psnr = -10 log10 of that error. ssim: Wang et al. 2004, windows of 7x7 pixels.
    """
    from scipy.optimize import linear_sum_assignment
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    fits = pixels.ndim == 4 and pixels.shape == truth.shape and len(pixels) > 0
    require(fits, "pixels", tuple(pixels.shape), f"of shape (n, C, H, W), as the truth, {tuple(truth.shape)}")
    require(min(truth.shape[2:]) >= 7, "truth", tuple(truth.shape), "of images at least 7 pixels wide and high")
    for name, images in (("pixels", pixels), ("truth", truth)):
        good = bool(((images >= -1e-4) & (images <= 1 + 1e-4)).all())
        require(good, name, (float(images.min()), float(images.max())), "in [0, 1]")
    recovered = pixels.clamp(0, 1).double().cpu().numpy()
    true = truth.clamp(0, 1).double().cpu().numpy()
    errors = ((true[:, None] - recovered[None]) ** 2).mean((2, 3, 4))  # (n true, n recovered)
    _, order = linear_sum_assignment(errors)
    psnr = []
    ssim = []
    for image, match in zip(true, recovered[order], strict=True):
        same = np.array_equal(image, match)
        psnr.append(np.inf if same else peak_signal_noise_ratio(image, match, data_range=1.0))
        ssim.append(structural_similarity(image, match, data_range=1.0, channel_axis=0))
    return Likeness(np.array(psnr), np.array(ssim), order)
