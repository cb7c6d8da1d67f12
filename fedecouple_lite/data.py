"""Image data as resident tensors: no loader, no workers, no file read twice.

``load("digits")`` needs only scikit-learn (1,797 real handwritten digits). The others come through torchvision into
``data/`` (or the folder in FEDECOUPLE_DATA), or from any ``.npz`` with x_train, y_train, x_test, y_test. Train and test
images are pooled, and divided again client by client: so a client's training and test images follow the same law.

An ``.npz`` may also say whose image each is (w_train, w_test), and hold images of people who join only at the end
(x_unseen, y_unseen, w_unseen): a natural federation. data/README.md says how to make one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .archives import check_npz
from .errors import nearest

# name -> torchvision's class and its options
TORCHVISION: dict[str, tuple[str, dict[str, str]]] = {
    "mnist": ("MNIST", {}),
    "fashion_mnist": ("FashionMNIST", {}),
    "emnist": ("EMNIST", {"split": "balanced"}),
    "cifar10": ("CIFAR10", {}),
    "cifar100": ("CIFAR100", {}),
}
DATASETS = ("digits", *TORCHVISION)
FLOAT32_MAX = np.finfo(np.float32).max
MOST_CLASSES = 10_000  # that labels alone may ask for: a net has an output for each number up to the largest
# name -> where torchvision keeps its files, in the data folder
FOLDERS = {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "emnist": "EMNIST",
    "cifar10": "cifar-10-batches-py",
    "cifar100": "cifar-100-python",
}


@dataclass(frozen=True)
class Dataset:
    """Images x (N, C, H, W), uint8 or float, and labels y (N,) int64, on one device; classes: names, index = label.

    mean, std: (C, 1, 1) in pixel units, from the training images. uint8 stays uint8 until `images` takes some.
    own_test: how many images, the last ones, are the set's own test part. owners: (N,) int64, whose image each is; None
    where nobody knows. unseen: the images of people who own none of these, apart: a data set with owners of its own and
    the same classes, mean and std; None where there are none.
    """

    name: str
    x: Tensor
    y: Tensor
    classes: tuple[str, ...]
    mean: Tensor
    std: Tensor
    own_test: int = 0
    owners: Tensor | None = None
    unseen: Dataset | None = None

    def images(self, index: Tensor) -> Tensor:
        """The images at `index` (B,), normalised, (B, C, H, W) in mean's dtype."""
        pixels = self.x[index].to(self.mean.dtype)
        return (pixels - self.mean) / self.std

    def to(self, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> Dataset:
        """The same data on `device`; `images` will come as `dtype`."""
        moved = replace(
            self,
            x=self.x.to(device),
            y=self.y.to(device),
            mean=self.mean.to(device, dtype),
            std=self.std.to(device, dtype),
            owners=None if self.owners is None else self.owners.to(device),
            unseen=None if self.unseen is None else self.unseen.to(device, dtype),
        )
        moved.__dict__["digest"] = self.digest  # the same content: read once, not once per device
        return moved

    @cached_property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that stand for the content: images, labels, class names, which of the images are
        the set's own test part, and, where they are known, whose images they are and those of unseen people."""
        about = (self.classes, self.own_test, tuple(self.x.shape), self.x.dtype)
        content = hashlib.blake2b(repr(about).encode(), digest_size=8)
        for tensor in (self.x, self.y, self.mean, self.std):
            content.update(tensor.cpu().contiguous().numpy().data)
        if self.owners is not None:
            content.update(b"owners")
            content.update(self.owners.cpu().contiguous().numpy().data)
        if self.unseen is not None:
            content.update(f"unseen {self.unseen.digest}".encode())
        return content.hexdigest()

    @property
    def in_shape(self) -> tuple[int, ...]:
        """(C, H, W) of one image."""
        return tuple(self.x.shape[1:])


def from_arrays(
    name: str,
    x_train: Any,
    y_train: Any,
    x_test: Any,
    y_test: Any,
    classes: Any = None,
    *,
    w_train: Any = None,
    w_test: Any = None,
    x_unseen: Any = None,
    y_unseen: Any = None,
    w_unseen: Any = None,
) -> Dataset:
    """A Dataset from arrays: x (n, H, W), (n, H, W, C) or (n, C, H, W), C 1 or 3, uint8 or float; y (n,) whole numbers.

    x_test and y_test may be empty. w_train and w_test (n,), whole numbers: whose image each is; both or neither (w_test
    may be left out where the test part is empty). x_unseen, y_unseen and w_unseen, all or none: the images of people
    who own none of the others. Raises ValueError naming the array and what is wrong with it.

    Examples
    --------
    >>> x = np.zeros((6, 8, 8), np.uint8)
    >>> data = from_arrays("notes", x, [0, 1, 0, 1, 0, 1], [], [], w_train=[7, 7, 7, 9, 9, 9])
    >>> data.owners
    tensor([7, 7, 7, 9, 9, 9])
    """
    x, y = _checked("train", np.asarray(x_train), np.asarray(y_train))
    more_x, more_y = np.asarray(x_test), np.asarray(y_test)
    if more_x.shape[:1] == more_y.shape == (0,):  # no test part, of whatever shape and kind: an empty list is one
        more_x, more_y = x[:0], y[:0]
    more_x, more_y = _checked("test", more_x, more_y)
    if x.shape[1:] != more_x.shape[1:] or x.dtype != more_x.dtype or not len(x):
        raise ValueError(
            f"x_train ({x.dtype}, {x.shape}) must hold images, and x_test ({more_x.dtype}, {more_x.shape}) alike"
        )
    owners = _owners(w_train, w_test, len(y), len(more_y))
    unseen = _unseen(x_unseen, y_unseen, w_unseen, x, owners)
    images = np.concatenate([x, more_x])
    labels = np.concatenate([y, more_y])
    if classes is not None and np.ndim(classes) != 1:
        raise ValueError(f"classes={classes!r} must be names, one for each label")
    largest = labels.max() if unseen is None else max(labels.max(), unseen[1].max())
    if classes is None and largest >= MOST_CLASSES:
        raise ValueError(f"labels reach {largest}: number the classes from 0, or name them all in classes")
    names = tuple(str(label) for label in (range(largest + 1) if classes is None else classes))
    if len(names) < 2 or largest >= len(names):
        raise ValueError(f"labels reach {largest} with {len(names)} classes: at least 2, and one for each label")

    over_pixels = (0, 2, 3)  # images, height, width: one figure for each channel
    mean = torch.from_numpy(x.mean(over_pixels, dtype=np.float64)).float()[:, None, None]
    std = torch.from_numpy(x.std(over_pixels, dtype=np.float64)).float()[:, None, None]
    std = torch.where(std > 0, std, 1.0)  # a constant channel carries nothing: do not divide by 0
    of_all = torch.from_numpy(images)
    labels_of_all = torch.from_numpy(labels)
    data = Dataset(name, of_all, labels_of_all, names, mean, std, own_test=len(more_y))
    if owners is not None:
        data = replace(data, owners=torch.from_numpy(owners))
    if unseen is not None:
        their_x, their_y, their_owners = (torch.from_numpy(array) for array in unseen)
        data = replace(data, unseen=Dataset(f"{name}, unseen", their_x, their_y, names, mean, std, owners=their_owners))
    return data


def _checked(part: str, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images as (n, C, H, W), uint8 or float32, and labels as int64, or ValueError. part: "train", "test", "unseen"."""
    if y.ndim != 1 or x.ndim == 0 or len(x) != len(y):
        raise ValueError(f"x_{part} {x.shape} and y_{part} {y.shape} must hold one label for each image")
    labels = _whole_numbers(f"y_{part}", y, "give each class a number and put the names in classes")
    is_float = np.issubdtype(x.dtype, np.floating)
    if x.dtype != np.uint8 and not (is_float and (abs(x) <= FLOAT32_MAX).all()):
        raise ValueError(f"x_{part} ({x.dtype}) must be uint8, or float without NaN or infinite pixels")
    given = x.shape
    if x.ndim == 3:
        x = x[:, None]
    if x.ndim == 4 and x.shape[1] not in (1, 3):
        x = np.moveaxis(x, 3, 1)
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise ValueError(f"x_{part} {given} must be (n, H, W), (n, H, W, 1 or 3) or (n, 1 or 3, H, W)")
    kind = np.uint8 if x.dtype == np.uint8 else np.float32
    return np.ascontiguousarray(x, dtype=kind), labels


def _whole_numbers(name: str, numbers: np.ndarray, for_words: str) -> np.ndarray:
    """The array `name` as int64, or ValueError. for_words: what to do where it holds words."""
    if not np.issubdtype(numbers.dtype, np.integer):
        advice = f"; {for_words}" if numbers.dtype.kind in "USO" else ""
        raise ValueError(f"{name} ({numbers.dtype}) must be whole numbers >= 0{advice}")
    as_int64 = numbers.astype(np.int64)
    if (as_int64 < 0).any():  # also of unsigned numbers that are too large
        raise ValueError(f"{name} (least {as_int64.min()}) must be whole numbers >= 0")
    return as_int64


def _owners(w_train: Any, w_test: Any, train_images: int, test_images: int) -> np.ndarray | None:
    """Whose image each is, of the training and then of the test part, (n,) int64; None where neither is given."""
    if w_train is None and w_test is None:
        return None
    if w_test is None and test_images == 0:
        w_test = []
    for name, other, owners in (("w_train", "w_test", w_train), ("w_test", "w_train", w_test)):
        if owners is None:
            raise ValueError(f"{name} is missing: beside {other} it must say whose image each is")
    of_train = _checked_owners("w_train", w_train, train_images)
    of_test = _checked_owners("w_test", w_test, test_images)
    return np.concatenate([of_train, of_test])


def _checked_owners(name: str, owners: Any, images: int) -> np.ndarray:
    """The owners of so many images, (images,) int64, or ValueError naming the array."""
    owners = np.asarray(owners)
    if owners.shape != (images,):
        raise ValueError(f"{name} {owners.shape} must hold one owner for each of the {images} images")
    if images == 0:  # of whatever kind: an empty list is one
        return np.zeros(0, np.int64)
    return _whole_numbers(name, owners, "give each owner a number")


def _unseen(
    x_unseen: Any,
    y_unseen: Any,
    w_unseen: Any,
    x_train: np.ndarray,
    owners: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Images, labels and owners of the people who own none of the others' images, checked; None where none is given.

    x_train: the training images as they were checked, (n, C, H, W). owners: of the training and the test images.
    """
    given = {"x_unseen": x_unseen, "y_unseen": y_unseen, "w_unseen": w_unseen}
    missing = [name for name, array in given.items() if array is None]
    if len(missing) == len(given):
        return None
    if missing:
        raise ValueError(f"{', '.join(missing)} missing: x_unseen, y_unseen and w_unseen go together, all or none")
    x, y = _checked("unseen", np.asarray(x_unseen), np.asarray(y_unseen))
    if x.shape[1:] != x_train.shape[1:] or x.dtype != x_train.dtype or not len(x):
        wanted = f"images as x_train ({x_train.dtype}, {x_train.shape}) does"
        raise ValueError(f"x_unseen ({x.dtype}, {x.shape}) must hold {wanted}")
    their_owners = _checked_owners("w_unseen", w_unseen, len(y))
    if owners is not None:
        in_both = np.intersect1d(owners, their_owners)
        if len(in_both):
            raise ValueError(f"w_unseen holds owner {in_both[0]} of w_train or w_test: unseen people are other people")
    return x, y, their_owners


def data_folder() -> Path:
    """FEDECOUPLE_DATA (~ is the home folder), else `data/` of a source checkout, else `data/` here."""
    given = os.environ.get("FEDECOUPLE_DATA")
    if given:
        return Path(given).expanduser()
    checkout = Path(__file__).resolve().parents[1]
    here = checkout if (checkout / "pyproject.toml").exists() else Path.cwd()
    return here / "data"


def files_of(name: str | Path) -> tuple[tuple[str, int, int], ...]:
    """The files that `load(name)` would read now: path, time of the last change of any kind (ns), bytes. None for the
    digits."""
    name = str(name)
    if name.endswith(".npz"):
        paths = [Path(name).expanduser()]
    elif name in TORCHVISION:
        kept = data_folder() / f"{name}.npz"
        paths = [kept] if kept.exists() else sorted((data_folder() / FOLDERS[name]).rglob("*"))
    else:
        paths = []
    files = []
    for path in paths:
        if path.is_file():
            about = path.stat()
            # Not only st_mtime, which copying may set back to what it was.
            files.append((str(path.resolve()), max(about.st_mtime_ns, about.st_ctime_ns), about.st_size))
    return tuple(files)


def load(name: str | Path) -> Dataset:
    """The data set `name`: one of DATASETS, or the path of an ``.npz``. A named one is also read from <name>.npz in the
    data folder. Downloads show a progress bar and happen once. ValueError: unknown, unusable or out of reach.

    Examples
    --------
    >>> data = load("digits")
    >>> len(data.y), data.in_shape, len(data.classes)
    (1797, (1, 8, 8), 10)
    """
    name = str(name)
    if name == "digits":
        return _load_digits()
    if name.endswith(".npz"):
        return _load_npz(Path(name).expanduser())
    if name not in TORCHVISION:
        raise ValueError(f"dataset={name!r} is unknown; {nearest(name, DATASETS)} or a path ending in .npz")
    kept = data_folder() / f"{name}.npz"
    return _load_npz(kept) if kept.exists() else _load_torchvision(name, data_folder())


def _load_digits() -> Dataset:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)  # (1797, 64), grey levels 0 to 16
    images = pixels.reshape(-1, 8, 8).astype(np.uint8)
    return from_arrays("digits", images, labels, images[:0], labels[:0], range(10))


def _load_npz(path: Path) -> Dataset:
    keys = ("x_train", "y_train", "x_test", "y_test")
    may_be_there = ("classes", "w_train", "w_test", "x_unseen", "y_unseen", "w_unseen")
    try:
        check_npz(path, (*keys, *may_be_there))
        with np.load(path, allow_pickle=False) as file:
            missing = [key for key in keys if key not in file.files]
            if missing:
                raise ValueError(f"it lacks {', '.join(missing)} and holds {', '.join(file.files) or 'nothing'}")
            x_train, y_train, x_test, y_test = (_array_of(file, key) for key in keys)
            more = {key: _array_of(file, key) for key in may_be_there if key in file.files}
            return from_arrays(path.stem, x_train, y_train, x_test, y_test, **more)
    except Exception as error:  # numpy, zipfile and lzma raise a dozen kinds for a damaged file: all mean the same
        raise ValueError(f"dataset={str(path)!r} cannot be used: {error}") from None


def _array_of(file: Any, key: str) -> np.ndarray:
    """One array of an open .npz; ValueError naming it where it holds Python objects, such as words."""
    try:
        return file[key]
    except ValueError as error:
        if "pickle" not in str(error):
            raise
        raise ValueError(f"{key} holds Python objects; wanted are numbers, or, for classes, plain strings") from None


def _load_torchvision(name: str, folder: Path) -> Dataset:
    from torchvision import datasets

    class_name, options = TORCHVISION[name]
    kind = getattr(datasets, class_name)
    make = partial(kind, str(folder), **options)
    images, labels = [], []
    for train in (True, False):
        check_idx_files(name, folder / FOLDERS[name] / "raw")
        try:
            part = make(train=train, download=False)
        except (RuntimeError, OSError):
            damaged = damaged_batches(kind, folder / FOLDERS[name])
            part = _download(name, folder, damaged, partial(make, train=train, download=True))
        except Exception as error:  # whatever a reader of damaged files raises
            where = str(folder / FOLDERS[name])
            raise ValueError(f"dataset={name!r} cannot be read ({error}): delete {where!r} and fetch again") from None
        pixels = np.asarray(part.data)
        if name == "emnist":  # stored lying on its side; everything else is upright
            pixels = pixels.transpose(0, 2, 1)
        images.append(pixels)
        labels.append(np.asarray(part.targets))
    return from_arrays(name, images[0], labels[0], images[1], labels[1], part.classes)


def check_idx_files(name: str, folder: Path) -> None:
    """Raise ValueError naming the first of the MNIST family's files that is there but damaged: torchvision would
    neither read it nor fetch it again."""
    files = "emnist-balanced-*-ubyte" if name == "emnist" else "*-ubyte"
    for path in sorted(folder.glob(files)):
        with open(path, "rb") as file:
            header = file.read(16)
        dimensions = header[3] if len(header) >= 4 else 0
        sizes = [int.from_bytes(header[4 * i : 4 * i + 4], "big") for i in range(1, dimensions + 1)]
        expected = 4 + 4 * dimensions + prod(sizes)  # bytes
        if dimensions == 0 or path.stat().st_size != expected:
            raise ValueError(is_damaged(name, path))


def damaged_batches(kind: Any, folder: Path) -> list[Path]:
    """CIFAR's files that are there but are not what they were when they were fetched."""
    from torchvision.datasets.utils import check_integrity

    if not hasattr(kind, "train_list"):  # the MNIST family, which has no digests
        return []
    known = [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]
    paths = {folder / file_name: md5 for file_name, md5 in known}
    return [path for path, md5 in paths.items() if path.is_file() and not check_integrity(str(path), md5)]


def is_damaged(name: str, path: Path) -> str:
    """The message about such a file."""
    damaged = f"the file {str(path)!r} is damaged ({path.stat().st_size} bytes)"
    return f"dataset={name!r}: {damaged}: delete it and fetch again, python -m fedecouple_lite fetch {name}"


def _download(name: str, folder: Path, damaged: Sequence[Path], download: Callable[[], Any]) -> Any:
    """download(), into `folder`, where it makes `damaged` files anew; ValueError saying what to do where it cannot."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return download()
    except (OSError, RuntimeError) as error:  # urllib's URLError is an OSError
        if damaged:
            raise ValueError(is_damaged(name, damaged[0])) from None
        if isinstance(error, PermissionError | FileExistsError | NotADirectoryError):
            raise ValueError(f"data folder {str(folder)!r} cannot be written ({error}); set FEDECOUPLE_DATA") from None
        raise ValueError(
            f"dataset={name!r} is not in {str(folder)!r} and cannot be downloaded ({error}). With a network\n"
            f"  python -m fedecouple_lite fetch {name}\nfetches it: copy that data folder here, or point "
            "FEDECOUPLE_DATA at it. The digits need no download: --dataset digits"
        ) from None
