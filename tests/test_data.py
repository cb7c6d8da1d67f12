import hashlib
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import arrays

from fedecouple_lite import data
from fedecouple_lite.data import files_of, from_arrays, load


def npz(path, **change):
    x, y = arrays()
    parts = {"x_train": x[:20], "y_train": y[:20], "x_test": x[20:], "y_test": y[20:]} | change
    np.savez(path, **{k: v for k, v in parts.items() if v is not None})
    return str(path)


def test_digits_are_the_real_ones(digits):
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    assert digits.x.shape == (1797, 1, 8, 8) and digits.x.dtype == torch.uint8
    assert np.array_equal(digits.x.reshape(-1, 64).numpy(), x) and np.array_equal(digits.y.numpy(), y)
    images = digits.images(torch.arange(1797))
    assert abs(images.mean()) < 1e-5 and abs(images.std() - 1) < 1e-3


def test_an_npz_is_pooled_and_normalised_by_its_training_images(tmp_path):
    d = load(npz(tmp_path / "mine.npz"))
    assert d.name == "mine" and len(d.y) == 30 and d.in_shape == (1, 8, 8) and d.classes == ("0", "1", "2")
    first = d.images(torch.arange(20))
    assert abs(first.mean()) < 1e-5 and abs(first.std(correction=0) - 1) < 1e-5


def test_colour_first_and_colour_last_are_the_same(digits):
    x = np.random.default_rng(0).integers(0, 255, (6, 8, 8, 3), dtype=np.uint8)
    y = np.arange(6) % 2
    a = from_arrays("a", x, y, x[:0], y[:0])
    b = from_arrays("b", x.transpose(0, 3, 1, 2), y, x[:0].transpose(0, 3, 1, 2), y[:0])
    assert torch.equal(a.x, b.x) and a.in_shape == (3, 8, 8)


def test_a_constant_channel_is_not_divided_by_zero():
    x, y = np.full((4, 8, 8), 7, np.uint8), np.array([0, 1, 0, 1])
    assert torch.equal(from_arrays("flat", x, y, x[:0], y[:0]).images(torch.arange(4)), torch.zeros(4, 1, 8, 8))


X, Y = arrays()
BAD = {
    "lacks y_test": {"y_test": None},
    "one label for each image": {"y_train": Y[:19]},
    "whole numbers": {"y_train": Y[:20].astype(float)},
    "least -1": {"y_train": Y[:20] - 1},
    "NaN": {"x_train": np.full((20, 8, 8), np.nan), "x_test": X[20:].astype(float)},
    "alike": {"x_test": np.zeros((10, 9, 9), np.uint8)},
    r"must be \(n, H, W\)": {"x_train": np.zeros((20, 64), np.uint8)},
    "must be uint8": {"x_train": np.zeros((20, 8, 8), np.int32)},
    "must hold images": {"x_train": X[:0], "y_train": Y[:0]},
    "at least 2": {"y_train": Y[:20] * 0, "y_test": Y[20:] * 0},
    "labels reach 2 with 2 classes": {"classes": np.array(["a", "b"])},
    "classes=array.* must be names, one for each label": {"classes": np.array(3)},
    r"y_train \(<U3\) must be whole numbers >= 0; give each class a number": {"y_train": np.array(["cat", "dog"] * 10)},
    r"y_test \(<U3\) must be whole numbers": {"y_test": np.array(["cat", "dog"] * 5)},
    "y_train holds Python objects; wanted are numbers": {"y_train": np.array(["cat", "dog"] * 10, object)},
    r"y_train \(bool\) must be whole numbers": {"y_train": Y[:20] > 0},
    r"y_train \(least -\d+\)": {"y_train": Y[:20].astype(np.uint64) + 2**63},
    "labels reach 1000000002: number the classes from 0": {"y_train": Y[:20] + 10**9},
    "float without NaN or infinite": {"x_train": np.full((20, 8, 8), 1e300), "x_test": X[20:].astype(float)},
}


@pytest.mark.parametrize("message", BAD)
def test_an_unusable_npz_says_what_is_wrong(tmp_path, message):
    path = npz(tmp_path / "bad.npz", **BAD[message])
    with pytest.raises(ValueError, match=rf"dataset='.*bad\.npz' cannot be used: .*{message}"):
        load(path)


def test_a_damaged_or_missing_file_is_named(tmp_path):
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04 half a file")
    (tmp_path / "blank.npz").write_bytes(b"")
    whole = npz(tmp_path / "whole.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:-100])
    np.save(tmp_path / "array.npy", X)
    os.rename(tmp_path / "array.npy", tmp_path / "array.npz")
    for name in ("torn", "blank", "cut", "array", "none"):
        with pytest.raises(ValueError, match=rf"dataset='.*{name}\.npz' cannot be used"):
            load(str(tmp_path / f"{name}.npz"))
    assert len(load(whole).y) == 30


EMPTY = {
    "lists": ([], []),
    "floats": (np.array([]), np.array([])),
    "as the others": (X[:0], Y[:0]),
    "another shape": (np.zeros((0, 28, 28)), np.zeros(0)),
    "words": (np.array([]), np.array([], str)),
}


@pytest.mark.parametrize("kind", EMPTY)
def test_a_test_part_may_be_empty(kind):
    x, y = EMPTY[kind]
    d = from_arrays("mine", X, Y, x, y)
    assert (
        len(d.y) == 30 and d.own_test == 0 and torch.equal(d.x[:, 0], torch.from_numpy(X)) and d.y.dtype == torch.int64
    )


@pytest.mark.parametrize(("x", "y"), [(X[:3], []), ([], Y[:3])])
def test_a_half_empty_test_part_is_not_taken(x, y):
    with pytest.raises(ValueError, match=r"x_test .* and y_test .* must hold one label for each image"):
        from_arrays("mine", X, Y, np.asarray(x), np.asarray(y))


def test_labels_with_gaps_keep_their_numbers():
    d = from_arrays("gaps", X, Y * 3 + 2, X[:0], Y[:0])
    assert d.classes == tuple("012345678") and sorted(set(d.y.tolist())) == [2, 5, 8]


def test_what_load_would_read_is_known_by_every_change(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDECOUPLE_DATA", str(tmp_path))
    assert files_of("digits") == files_of("mnist") == files_of(str(tmp_path / "mine.npz")) == ()
    kept = tmp_path / "mine.npz"
    seen = set()

    def is_new(name="mine.npz"):
        before = len(seen)
        seen.add(files_of(str(tmp_path / name)))
        return len(seen) == before + 1

    npz(kept)
    assert is_new() and not is_new() and not is_new("../" + tmp_path.name + "/mine.npz")
    was_changed = kept.stat().st_mtime_ns
    kept.write_bytes(kept.read_bytes()[:-1] + b"x")
    os.utime(kept, ns=(was_changed, was_changed))
    assert is_new()
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte").write_bytes(b"1")
    one = files_of("mnist")
    (raw / "train-images-idx3-ubyte").write_bytes(b"12")
    two = files_of("mnist")
    npz(tmp_path / "mnist.npz")  # read in place of the others
    three = files_of("mnist")
    assert len({one, two, three}) == 3 and "mnist.npz" in three[0][0] and len(three) == 1


def test_the_digest_is_of_the_content_and_not_of_where_it_lies(tmp_path):
    digests = {load(npz(tmp_path / name)).digest for name in ("a.npz", "b.npz")}
    one = load(str(tmp_path / "a.npz"))
    assert digests == {one.digest} == {one.to("cpu", torch.float64).digest}
    changed = X.copy()
    changed[3, 4, 5] ^= 1
    others = [
        from_arrays("a", changed[:20], Y[:20], X[20:], Y[20:]),
        from_arrays("a", X[:20], Y[:20][::-1].copy(), X[20:], Y[20:]),
        from_arrays("a", X[:20], Y[:20], X[20:], Y[20:], ["x", "y", "z"]),
        from_arrays("a", X[:19], Y[:19], X[19:], Y[19:]),
        from_arrays("a", X[:20].astype(np.float32), Y[:20], X[20:].astype(np.float32), Y[20:]),
    ]
    assert len({one.digest, *(other.digest for other in others)}) == 6


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(ValueError, match="dataset='fashion-mnits' is unknown; did you mean 'fashion_mnist'"):
        load("fashion-mnits")


def test_no_network_and_no_data_names_the_command_that_fetches(tmp_path, monkeypatch):
    from torchvision import datasets

    def offline(*args, download, **options):
        raise (OSError("no route to host") if download else RuntimeError("Dataset not found"))

    monkeypatch.setattr(datasets, "MNIST", offline)
    monkeypatch.setenv("FEDECOUPLE_DATA", str(tmp_path / "empty"))
    with pytest.raises(ValueError, match=r"(?s)cannot be downloaded \(no route.*fedecouple_lite fetch mnist"):
        load("mnist")


def test_a_data_folder_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FEDECOUPLE_DATA", str(tmp_path / "file"))
    with pytest.raises(ValueError, match=r"data folder '.*file' cannot be written .* set FEDECOUPLE_DATA"):
        load("mnist")


def test_a_named_set_is_read_from_an_npz_in_the_data_folder(tmp_path, monkeypatch):
    npz(tmp_path / "cifar10.npz")
    monkeypatch.setenv("FEDECOUPLE_DATA", str(tmp_path))
    assert load("cifar10").name == "cifar10" and data.data_folder() == tmp_path


def idx(*sizes, content=b""):
    """A file of the MNIST family: its header, then as many bytes as the sizes say."""
    header = bytes([0, 0, 8, len(sizes)]) + b"".join(size.to_bytes(4, "big") for size in sizes)
    return header + (content or bytes(int(np.prod(sizes))))


def test_emnist_is_read_from_idx_files_and_stands_upright(tmp_path, monkeypatch):
    """torchvision's own reader on generated idx files: EMNIST stores every image transposed."""
    raw = tmp_path / "EMNIST" / "raw"
    raw.mkdir(parents=True)
    lying = np.arange(2 * 28 * 28, dtype=np.uint32).reshape(2, 28, 28).astype(np.uint8)
    for part in ("train", "test"):
        (raw / f"emnist-balanced-{part}-images-idx3-ubyte").write_bytes(idx(2, 28, 28, content=lying.tobytes()))
        (raw / f"emnist-balanced-{part}-labels-idx1-ubyte").write_bytes(idx(2, content=bytes([3, 46])))
    (raw / "emnist-letters-train-images-idx3-ubyte").write_bytes(b"")  # damaged, but not of the part that is read
    monkeypatch.setenv("FEDECOUPLE_DATA", str(tmp_path))
    d = load("emnist")
    assert len(d.classes) == 47 and d.y.tolist() == [3, 46, 3, 46] and d.own_test == 2
    assert np.array_equal(d.x[0, 0].numpy(), lying[0].T)


@pytest.fixture
def offline(monkeypatch):
    """Nothing can be downloaded."""

    def fail(*args, **options):
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", fail)
    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", fail)


IMAGES = idx(2, 28, 28)
CUTS = {
    "zero size": b"",
    "three bytes": IMAGES[:3],
    "half a header": IMAGES[:9],
    "truncated": IMAGES[:-1],
    "too long": IMAGES + b"x",
    "another header": b"<html>not found</html>",
}


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(
    ("name", "folder", "prefix"),
    [
        ("mnist", "MNIST", ("train-", "t10k-")),
        ("fashion_mnist", "FashionMNIST", ("train-", "t10k-")),
        ("emnist", "EMNIST", ("emnist-balanced-train-", "emnist-balanced-test-")),
    ],
)
def test_a_damaged_file_of_the_mnist_family_is_named(tmp_path, monkeypatch, name, folder, prefix, cut):
    raw = tmp_path / folder / "raw"
    raw.mkdir(parents=True)
    files = {}
    for part in prefix:
        files[f"{part}images-idx3-ubyte"] = IMAGES
        files[f"{part}labels-idx1-ubyte"] = idx(2, content=bytes([3, 4]))
    for file, content in files.items():
        (raw / file).write_bytes(content)
    monkeypatch.setenv("FEDECOUPLE_DATA", str(tmp_path))
    assert load(name).y.tolist() == [3, 4, 3, 4]
    for file, content in files.items():
        (raw / file).write_bytes(CUTS[cut])
        message = (
            rf"dataset='{name}': the file '.*/raw/{file}' is damaged \({len(CUTS[cut])} bytes\): delete it and fetch"
        )
        with pytest.raises(ValueError, match=message):
            load(name)
        (raw / file).unlink()
        with pytest.raises(ValueError, match=rf"'{name}' is not in .* and cannot be downloaded"):
            load(name)
        (raw / file).write_bytes(content)


def test_damaged_files_of_an_old_torchvision_are_named_too(tmp_path, monkeypatch):
    processed = tmp_path / "MNIST" / "processed"
    processed.mkdir(parents=True)
    for part in ("training", "test"):
        (processed / f"{part}.pt").write_bytes(b"")
    monkeypatch.setenv("FEDECOUPLE_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=r"dataset='mnist' cannot be read .*: delete '.*MNIST' and fetch again"):
        load("mnist")


@pytest.fixture
def tiny_cifar(tmp_path, monkeypatch):
    """CIFAR-10's files, one image in each, under digests of their own."""
    import pickle

    from torchvision import datasets

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    names = [name for name, _ in datasets.CIFAR10.train_list + datasets.CIFAR10.test_list]
    for i, name in enumerate(names):
        image = np.full((1, 3 * 32 * 32), i, np.uint8)
        (folder / name).write_bytes(pickle.dumps({"data": image, "labels": [i % 2]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))

    def known(name):
        return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

    monkeypatch.setattr(datasets.CIFAR10, "train_list", [known(name) for name in names[:5]])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [known(names[5])])
    monkeypatch.setattr(datasets.CIFAR10, "meta", datasets.CIFAR10.meta | {"md5": known("batches.meta")[1]})
    monkeypatch.setenv("FEDECOUPLE_DATA", str(tmp_path))
    return folder


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("file", ["data_batch_1", "data_batch_5", "test_batch", "batches.meta"])
def test_a_damaged_file_of_cifar_is_named_where_it_cannot_be_fetched(tiny_cifar, file):
    d = load("cifar10")
    assert d.y.tolist() == [0, 1, 0, 1, 0, 1] and d.own_test == 1 and d.x[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    whole = (tiny_cifar / file).read_bytes()
    for damaged in (b"", whole[:-5]):
        (tiny_cifar / file).write_bytes(damaged)
        message = rf"dataset='cifar10': the file '.*/{file}' is damaged \({len(damaged)} bytes\): delete it and fetch"
        with pytest.raises(ValueError, match=message):
            load("cifar10")
    (tiny_cifar / file).unlink()
    with pytest.raises(ValueError, match=r"dataset='cifar10' is not in .* and cannot be downloaded"):
        load("cifar10")


def test_a_damaged_file_of_cifar_is_fetched_again_where_it_can(tiny_cifar, monkeypatch):
    whole = (tiny_cifar / "data_batch_2").read_bytes()
    (tiny_cifar / "data_batch_2").write_bytes(b"")

    def download(*args, **options):
        (tiny_cifar / "data_batch_2").write_bytes(whole)

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", download)
    assert len(load("cifar10").y) == 6


def test_the_data_folder_may_be_given_by_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("FEDECOUPLE_DATA", "~/deep/images")
    assert data.data_folder() == tmp_path / "deep" / "images"
    npz(tmp_path / "mine.npz")
    assert load("~/mine.npz").name == "mine" and len(files_of("~/mine.npz")) == 1


def test_a_path_is_as_good_as_its_name(tmp_path):
    assert load(tmp_path / npz(tmp_path / "mine.npz")).digest == load(str(tmp_path / "mine.npz")).digest


def test_real_fashion_mnist_through_torchvision(real_images, monkeypatch):
    monkeypatch.setenv("FEDECOUPLE_DATA", str(real_images))
    d = load("fashion_mnist")
    assert d.x.shape == (70000, 1, 28, 28) and abs(d.mean.item() / 255 - 0.2860) < 1e-4


@pytest.mark.parametrize("shape", [(5,), (5, 64), (5, 2, 4, 4, 1), (5, 2, 4, 4)])
def test_images_of_another_shape_are_refused_by_the_shape_that_was_given(shape):
    y = np.arange(5) % 2
    message = f"x_train {shape} must be (n, H, W), (n, H, W, 1 or 3) or (n, 1 or 3, H, W)"
    with pytest.raises(ValueError, match=re.escape(message)):
        from_arrays("mine", np.zeros(shape, np.uint8), y, np.zeros((0, 8, 8), np.uint8), y[:0])


def test_without_a_folder_given_it_is_that_of_the_checkout_or_of_the_place(tmp_path, monkeypatch):
    monkeypatch.delenv("FEDECOUPLE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    checkout = Path(data.__file__).parents[1]
    assert data.data_folder() == checkout / "data"
    installed = tmp_path / "site-packages" / "fedecouple_lite" / "data.py"  # no project lies around it
    monkeypatch.setattr(data, "__file__", str(installed))
    assert data.data_folder() == tmp_path / "data"
