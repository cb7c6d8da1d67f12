"""A net in two parts, each a function of named tensors: ``logits = classifier(extractor(x))``.

The modules carry no weights that matter: every call brings its tensors, so clients share one net object.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, lru_cache, partial
from math import prod, sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .errors import require
from .precision import PRECISIONS, products_in
from .tensors import CLASSIFIER, EXTRACTOR, Tensors, under


class DecoupledNet:
    """An extractor, images (B, *in_shape) -> features (B, d), and a classifier, features -> logits (B, C).

    Any two modules whose output for an image is a function of that image and the weights alone. ValueError, naming the
    layer, where it depends on the rest of the batch or on train/eval mode (BatchNorm: use GroupNorm), or differs from
    call to call (Dropout, which draws from a global generator, so that no run could be repeated); and where shapes do
    not fit. Parameters with requires_grad=False are frozen: they keep their values, whatever a method trains.

    Examples
    --------
    >>> extractor = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh())
    >>> net = DecoupledNet(extractor, nn.Linear(16, 10), in_shape=(1, 8, 8))
    >>> weights = net.init(seed=0)
    >>> sorted(weights)
    ['classifier.bias', 'classifier.weight', 'extractor.1.bias', 'extractor.1.weight']
    >>> net.logits(weights, torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """

    def __init__(self, extractor: nn.Module, classifier: nn.Module, in_shape: tuple[int, ...]):
        self.extractor = copy.deepcopy(extractor)
        self.classifier = copy.deepcopy(classifier)
        self.in_shape = tuple(in_shape)
        self.precision = "float32"
        self._start: Tensors = {}
        self.frozen: set[str] = set()
        for part, module in ((EXTRACTOR, self.extractor), (CLASSIFIER, self.classifier)):
            for name, parameter in module.named_parameters():
                if isinstance(parameter, nn.UninitializedParameter):
                    raise ValueError(f"model: {part}{name} has no size yet; run a lazy module once on images first")
                self._start[part + name] = parameter.detach().clone()
                if not parameter.requires_grad:
                    self.frozen.add(part + name)
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                z = self.extractor(torch.zeros(2, *in_shape))
                logits = self.classifier(z)
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"this net cannot take images of shape {self.in_shape}: {error}") from None
        if z.ndim != 2 or logits.ndim != 2:
            raise ValueError(f"model must give (B, d), then (B, C), not {tuple(z.shape)}, then {tuple(logits.shape)}")
        self.features_dim = z.shape[1]
        self.classes = logits.shape[1]
        check_each_image_by_itself(self)

    def in_precision(self, precision: str) -> DecoupledNet:
        """The same net, its extractor computing in this precision, "float32" or "bf16" (see the module `precision`).
        Weights and features stay float32. ValueError for any other.

        Examples
        --------
        >>> net = DecoupledNet(nn.Flatten(), nn.Linear(4, 2), in_shape=(1, 2, 2)).in_precision("bf16")
        >>> net.features(net.init(0), torch.zeros(3, 1, 2, 2)).dtype
        torch.float32
        """
        require(precision in PRECISIONS, "precision", precision, f"one of {', '.join(PRECISIONS)}")
        net = copy.copy(self)  # it shares its modules, which hold nothing that changes
        net.precision = precision
        return net

    def is_frozen(self, name: str) -> bool:
        """Whether tensor `name` is a frozen parameter, also of a second set of weights, such as "personal."."""
        return any(name.endswith(frozen) for frozen in self.frozen)

    @cached_property
    def structure(self) -> str:
        """Sixteen hexadecimal digits that stand for what the net computes: its modules and their code, the names and
        shapes of its weights, and the initial values that `init` keeps."""
        content = hashlib.blake2b(repr((self.extractor, self.classifier, self.in_shape)).encode(), digest_size=8)
        for module in (*self.extractor.modules(), *self.classifier.modules()):
            kind: Any = type(module)  # it is hashable, as any class; mypy asks whether its instances are
            content.update(source_of(kind).encode())
        drawn = self._drawn_at_start()
        for name, tensor in self._start.items():
            content.update(repr((name, tuple(tensor.shape), name in self.frozen)).encode())
            if name not in drawn:
                content.update(tensor.cpu().contiguous().numpy().tobytes())
        return content.hexdigest()

    def features(self, tensors: Tensors, x: Tensor, prefix: str = "") -> Tensor:
        """f(theta; x), (B, d). `prefix` chooses a second set of weights, such as "personal."."""
        weights = under(tensors, prefix + EXTRACTOR)
        with products_in(self.precision, x.device.type):
            z: Tensor = functional_call(self.extractor, weights, (x,))
        return z.to(x.dtype)

    def classify(self, tensors: Tensors, z: Tensor, prefix: str = "") -> Tensor:
        """g(phi; z): features (B, d) to logits (B, C)."""
        return functional_call(self.classifier, under(tensors, prefix + CLASSIFIER), (z,))

    def logits(self, tensors: Tensors, x: Tensor, prefix: str = "") -> Tensor:
        """g(phi; f(theta; x)): images (B, *in_shape) to logits (B, C)."""
        return self.classify(tensors, self.features(tensors, x, prefix), prefix)

    def init(
        self,
        seed: int,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ) -> Tensors:
        """Fresh weights, the same for the same seed on every device. Convolutions and linear layers: uniform in
        +-1/sqrt(fan_in) (PyTorch's default), drawn in float32; other parameters keep the value they had."""
        generator = torch.Generator().manual_seed(seed)  # our own, not the global one
        weights = dict(self._start)
        for name, fan_in in self._drawn_at_start().items():
            bound = 1 / sqrt(fan_in)
            weights[name] = torch.empty(weights[name].shape).uniform_(-bound, bound, generator=generator)
        return {name: weight.to(device, dtype) for name, weight in weights.items()}

    def _drawn_at_start(self) -> dict[str, int]:
        """The parameters that `init` draws, in the order in which it does, and each one's fan-in."""
        fan_in = {}
        for part, module in ((EXTRACTOR, self.extractor), (CLASSIFIER, self.classifier)):
            for path, layer in module.named_modules(prefix=part.removesuffix(".")):
                if not isinstance(layer, nn.Linear | nn.modules.conv._ConvNd):
                    continue
                for name, _ in layer.named_parameters(recurse=False):
                    if f"{path}.{name}" in self._start and f"{path}.{name}" not in self.frozen:
                        fan_in[f"{path}.{name}"] = prod(layer.weight.shape[1:])
        return fan_in


@lru_cache(maxsize=1024)  # looking it up parses the class's file: a tenth of a second for a net of small layers
def source_of(kind: Any) -> str:
    """The source code of a class, where there is any, and its name."""
    try:
        return f"{kind.__qualname__}\n{inspect.getsource(kind)}"
    except (OSError, TypeError):
        return kind.__qualname__


def check_each_image_by_itself(net: DecoupledNet) -> None:
    """Raise ValueError naming the first layer whose output for an image depends on more than the image and the weights.

    Four random images are run several times, alone and together, in training and in evaluation mode, and with other
    weights in between.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, *net.in_shape, generator=generator)
    # Initial values may be zeros, which would hide what a layer does.
    initial = net.init(0)
    weights = shaken(initial, 0.1, generator)
    other_weights = [shaken(initial, 1.0, generator) for _ in range(3)]
    copied = copy.deepcopy(net)  # one for all runs: a layer may remember earlier calls
    runs = [(images, True, "from call to call")] * 3
    runs.append((images[:1], True, "with the other images of its batch"))
    runs.append((images, False, "between training and evaluation mode"))
    with one_thread(), torch.random.fork_rng(devices=[]):  # what layers draw leaves the global generator as it was
        reference = outputs_by_layer(copied, weights, images, training=True)
        for others in other_weights:  # a layer may remember earlier weights, too
            outputs_by_layer(copied, others, images, training=True)
        outputs_of_runs = [outputs_by_layer(copied, weights, some, training) for some, training, _ in runs]
    for outputs, (*_, what) in zip(outputs_of_runs, runs, strict=True):
        for (layer, expected), (_, output) in zip(reference, outputs, strict=False):
            if not alike(output, expected[: len(output)]):
                raise ValueError(
                    f"model: the output of {layer} for an image changes {what}; use GroupNorm for BatchNorm, and leave "
                    "Dropout and other layers that draw at random out"
                )


def shaken(tensors: Tensors, size: float, generator: torch.Generator) -> Tensors:
    """The tensors, each plus normal numbers of this size."""
    moved = {}
    for name, tensor in tensors.items():
        moved[name] = tensor + size * torch.randn(tensor.shape, generator=generator)
    return moved


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on one core in between: images this few take longer on several, above all where others are at work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def alike(a: Tensor, b: Tensor) -> bool:
    """Equal but for rounding, which depends on the size of a batch."""
    scale = float(b.abs().max()) if b.numel() else 0.0
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-3, atol=1e-4 * scale + 1e-6)


def outputs_by_layer(net: DecoupledNet, weights: Tensors, images: Tensor, training: bool) -> list[tuple[str, Tensor]]:
    """(layer, its output) in the order in which layers end."""
    outputs: list[tuple[str, Tensor]] = []

    def note(layer: str, module: nn.Module, output: Any) -> None:
        if isinstance(output, Tensor) and output.is_floating_point():
            outputs.append((f"{layer} ({type(module).__name__})", output))

    hooks = []
    for part, whole in ((EXTRACTOR, net.extractor), (CLASSIFIER, net.classifier)):
        whole.train(training)
        for path, module in whole.named_modules(prefix=part.removesuffix(".")):
            hook = module.register_forward_hook(lambda module, _, output, layer=path: note(layer, module, output))
            hooks.append(hook)
    with torch.no_grad():
        net.logits(weights, images)
    for hook in hooks:
        hook.remove()
    return outputs


# What makes a net for images of a shape (channels, height, width) and a number of classes.
Builder = Callable[[tuple[int, ...], int], DecoupledNet]


def cnn(blocks: list[tuple[int, int, int]], active: type[nn.Module]) -> Builder:
    """A builder of nets of blocks (channels, kernel, padding): convolution, activation, 2x2 pooling; then a linear
    layer to d = 128."""
    return partial(_cnn, blocks=blocks, active=active)


def _cnn(
    in_shape: tuple[int, ...],
    classes: int,
    blocks: list[tuple[int, int, int]],
    active: type[nn.Module],
) -> DecoupledNet:
    channels = in_shape[0]
    side = in_shape[-1]
    layers: list[nn.Module] = []
    for out_channels, kernel, padding in blocks:
        layers += [nn.Conv2d(channels, out_channels, kernel, padding=padding), active(), nn.MaxPool2d(2)]
        channels = out_channels
        side = (side + 2 * padding - kernel + 1) // 2
    if side < 1:
        raise ValueError(f"this net cannot take images of shape {tuple(in_shape)}: they are too small")
    extractor = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * side * side, 128), active())
    return DecoupledNet(extractor, nn.Linear(128, classes), in_shape)


def resnet18(in_shape: tuple[int, ...], classes: int) -> DecoupledNet:
    """ResNet-18 (He et al. 2016) for small images, d = 512; 11 million weights, a hundred times cnn32's.

    Torchvision's, with the first layer that He et al. use for CIFAR (3x3, no pooling behind it), and GroupNorm of 32
    groups (Wu and He 2018) in place of BatchNorm, whose statistics federated clients cannot share (Hsieh et al. 2020).
    """
    from torchvision.models import resnet18 as of_torchvision  # slow to import, and few need it

    extractor = of_torchvision(norm_layer=partial(nn.GroupNorm, 32))
    extractor.conv1 = nn.Conv2d(in_shape[0], 64, 3, padding=1, bias=False)
    extractor.maxpool = nn.Identity()
    extractor.fc = nn.Identity()
    return DecoupledNet(extractor, nn.Linear(512, classes), in_shape)


# By name. small_cnn is for 8x8 digits; cnn28 (800 -> 128) and cnn32 (576 -> 128) are the ones used with FedPAC for the
# MNIST family and for CIFAR; resnet18 is for a GPU.
NETS: dict[str, Builder] = {
    "small_cnn": cnn([(16, 3, 1), (32, 3, 1)], nn.ReLU),
    "cnn28": cnn([(16, 5, 0), (32, 5, 1)], nn.LeakyReLU),
    "cnn32": cnn([(16, 5, 0), (32, 5, 1), (64, 3, 1)], nn.LeakyReLU),
    "resnet18": resnet18,
}
NET_BY_WIDTH = {28: "cnn28", 32: "cnn32"}  # any other width: small_cnn


def net_for(in_shape: tuple[int, ...], classes: int, name: str | None = None) -> DecoupledNet:
    """The net `name` of NETS, by default the one for this image size. ValueError where there is none that fits."""
    height, width = in_shape[-2:]
    name = name or NET_BY_WIDTH.get(width, "small_cnn")
    if name not in NETS:
        raise ValueError(f"net={name!r} is unknown; choose from {', '.join(NETS)}")
    if height != width or not 4 <= width <= 32:
        raise ValueError(
            f"image size {height}x{width} fits no built-in net (square, 4 to 32 pixels): resize the images"
        )
    return NETS[name](in_shape, classes)
