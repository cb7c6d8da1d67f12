"""A net in two parts, each a function of named tensors: ``logits = classifier(extractor(x))``.

The modules carry no weights that matter: every call brings its tensors, so clients share one net object.
"""

from __future__ import annotations

import copy
from math import prod, sqrt

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .tensors import CLASSIFIER, EXTRACTOR, Tensors


class DecoupledNet:
    """An extractor, images (B, *in_shape) -> features (B, d), and a classifier, features -> logits (B, C).

    Any two modules, but without BatchNorm (its running statistics are no weights: use GroupNorm) and without Dropout
    (it draws from a global generator, so no run could be repeated). ValueError for these, or where shapes do not fit.

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
        for module in [*extractor.modules(), *classifier.modules()]:
            if getattr(module, "track_running_stats", False) or isinstance(module, nn.modules.dropout._DropoutNd):
                raise ValueError(
                    f"model holds {type(module).__name__}: use GroupNorm for BatchNorm, and leave Dropout out"
                )
        self._start: Tensors = {}
        for part, module in ((EXTRACTOR, extractor), (CLASSIFIER, classifier)):
            for name, parameter in module.named_parameters():
                self._start[part + name] = parameter.detach().clone()
        self.extractor = copy.deepcopy(extractor)
        self.classifier = copy.deepcopy(classifier)
        self.in_shape = tuple(in_shape)
        try:
            with torch.no_grad():
                z = extractor(torch.zeros(2, *in_shape))
                logits = classifier(z)
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"this net cannot take images of shape {self.in_shape}: {error}") from None
        if z.ndim != 2 or logits.ndim != 2:
            raise ValueError(f"model must give (B, d), then (B, C), not {tuple(z.shape)}, then {tuple(logits.shape)}")
        self.features_dim = z.shape[1]
        self.classes = logits.shape[1]

    def features(self, tensors: Tensors, x: Tensor, prefix: str = "") -> Tensor:
        """f(theta; x), (B, d). `prefix` chooses a second set of weights, such as "personal."."""
        return functional_call(self.extractor, _without(prefix + EXTRACTOR, tensors), (x,))

    def classify(self, tensors: Tensors, z: Tensor, prefix: str = "") -> Tensor:
        """g(phi; z): features (B, d) to logits (B, C)."""
        return functional_call(self.classifier, _without(prefix + CLASSIFIER, tensors), (z,))

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
        for part, module in ((EXTRACTOR, self.extractor), (CLASSIFIER, self.classifier)):
            for path, layer in module.named_modules(prefix=part.removesuffix(".")):
                if not isinstance(layer, nn.Linear | nn.modules.conv._ConvNd):
                    continue
                fan_in = prod(layer.weight.shape[1:])
                bound = 1 / sqrt(fan_in)
                for name, parameter in layer.named_parameters(recurse=False):
                    drawn = torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator)
                    weights[f"{path}.{name}"] = drawn
        return {name: weight.to(device, dtype) for name, weight in weights.items()}


def _without(prefix: str, tensors: Tensors) -> Tensors:
    """The tensors under `prefix`, by the names that their module knows."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _cnn(
    in_shape: tuple[int, ...],
    classes: int,
    blocks: list[tuple[int, int, int]],
    active: type[nn.Module],
) -> DecoupledNet:
    """Blocks of (channels, kernel, padding): convolution, activation, 2x2 pooling; then a linear layer to d = 128."""
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


# Per net: its blocks and activation. small_cnn is for 8x8 digits; cnn28 (800 -> 128) and cnn32 (576 -> 128) are the
# ones used with FedPAC for the MNIST family and for CIFAR.
NETS: dict[str, tuple[list[tuple[int, int, int]], type[nn.Module]]] = {
    "small_cnn": ([(16, 3, 1), (32, 3, 1)], nn.ReLU),
    "cnn28": ([(16, 5, 0), (32, 5, 1)], nn.LeakyReLU),
    "cnn32": ([(16, 5, 0), (32, 5, 1), (64, 3, 1)], nn.LeakyReLU),
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
    blocks, active = NETS[name]
    return _cnn(in_shape, classes, blocks, active)
