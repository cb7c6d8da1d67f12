import hashlib
import json
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


# --- Whose image each is, and people who join at the end ---

W = np.arange(30) // 3 + 4  # owners 4 to 13, three images each: 20 of them in the training part
THEIRS = {"x_unseen": X[:6] ^ 255, "y_unseen": Y[:6], "w_unseen": np.array([40, 40, 40, 41, 41, 41])}
NATURAL = {"w_train": W[:20], "w_test": W[20:]} | THEIRS


def test_an_npz_may_say_whose_images_they_are_and_hold_those_of_unseen_people(tmp_path):
    d = load(npz(tmp_path / "notes.npz", **NATURAL))
    assert torch.equal(d.owners, torch.from_numpy(W)) and d.owners.dtype == torch.int64
    assert torch.equal(d.unseen.x[:, 0], torch.from_numpy(THEIRS["x_unseen"]))
    assert torch.equal(d.unseen.y, torch.from_numpy(Y[:6])) and d.unseen.owners.tolist() == [40, 40, 40, 41, 41, 41]
    assert d.unseen.classes == d.classes and d.unseen.own_test == 0 and d.unseen.unseen is None


def test_unseen_peoples_images_are_normalised_as_the_training_images_are(tmp_path):
    with_them = load(npz(tmp_path / "notes.npz", **NATURAL))
    without = load(npz(tmp_path / "mine.npz"))
    assert torch.equal(with_them.mean, without.mean) and torch.equal(with_them.std, without.std)
    shown = with_them.unseen.images(torch.arange(6))
    by_hand = (torch.from_numpy(THEIRS["x_unseen"])[:, None].float() - without.mean) / without.std
    assert torch.equal(shown, by_hand)


def test_owners_without_unseen_people_and_unseen_people_without_owners(tmp_path):
    owned = load(npz(tmp_path / "owned.npz", w_train=W[:20], w_test=W[20:]))
    joined = load(npz(tmp_path / "joined.npz", **THEIRS))
    assert owned.unseen is None and len(owned.owners) == 30
    assert joined.owners is None and len(joined.unseen.y) == 6
    plain = load(npz(tmp_path / "plain.npz"))
    assert plain.owners is None and plain.unseen is None


@pytest.mark.parametrize("w_test", [None, [], np.array([])])
def test_an_empty_test_part_needs_no_owners(w_test):
    d = from_arrays("notes", X, Y, [], [], w_train=W.astype(np.uint8), w_test=w_test)
    assert d.owners.tolist() == W.tolist() and d.owners.dtype == torch.int64


def test_a_class_that_only_unseen_people_have_is_one():
    d = from_arrays("notes", X, Y, [], [], **THEIRS | {"y_unseen": Y[:6] + 3})
    assert d.classes == tuple("012345") == d.unseen.classes


BAD_OWNERS = {
    r"w_train \(19,\) must hold one owner for each of the 20 images": {"w_train": W[:19]},
    r"w_test \(10, 1\) must hold one owner for each of the 10 images": {"w_test": W[20:, None]},
    r"w_train \(float64\) must be whole numbers": {"w_train": W[:20] / 1},
    r"w_train \(bool\) must be whole numbers": {"w_train": W[:20] > 8},
    r"w_test \(<U3\) must be whole numbers >= 0; give each owner a number": {"w_test": np.array(["ada", "bob"] * 5)},
    r"w_test \(least -1\) must be whole numbers": {"w_test": W[20:] - 11},
    "w_train holds Python objects": {"w_train": np.array(["ada", "bob"] * 10, object)},
    "w_test is missing: beside w_train": {"w_test": None},
    "w_train is missing: beside w_test": {"w_train": None},
    "w_unseen missing: x_unseen, y_unseen and w_unseen go together": {"w_unseen": None},
    "x_unseen, y_unseen missing: ": {"x_unseen": None, "y_unseen": None},
    r"w_unseen \(5,\) must hold one owner for each of the 6 images": {"w_unseen": THEIRS["w_unseen"][:5]},
    r"w_unseen \(least -2\) must be whole numbers": {"w_unseen": THEIRS["w_unseen"] - 42},
    "w_unseen holds owner 13 of w_train or w_test": {"w_unseen": np.array([40, 40, 40, 13, 41, 41])},
    r"x_unseen \(uint8, \(6, 1, 9, 9\)\) must hold images as x_train": {"x_unseen": np.zeros((6, 9, 9), np.uint8)},
    r"x_unseen \(float32, .*\) must hold images as x_train \(uint8": {"x_unseen": X[:6] / 255},
    r"x_unseen \(6, 64\) must be \(n, H, W\)": {"x_unseen": np.zeros((6, 64), np.uint8)},
    r"x_unseen \(6, 8, 8\) and y_unseen \(5,\) must hold one label": {"y_unseen": Y[:5]},
    r"y_unseen \(least -1\) must be whole numbers": {"y_unseen": Y[:6] - 1},
    "labels reach 7 with 3 classes": {"y_unseen": Y[:6] * 0 + 7, "classes": np.array(["a", "b", "c"])},
    "x_unseen .* must hold images": {"x_unseen": X[:0], "y_unseen": Y[:0], "w_unseen": W[:0]},
}


@pytest.mark.parametrize("message", BAD_OWNERS)
def test_owners_and_unseen_people_that_cannot_be_say_which_array_is_wrong(tmp_path, message):
    path = npz(tmp_path / "bad.npz", **NATURAL | BAD_OWNERS[message])
    with pytest.raises(ValueError, match=rf"dataset='.*bad\.npz' cannot be used: .*{message}"):
        load(path)


def test_the_digest_notices_whose_images_they_are_and_every_image_of_unseen_people():
    def made(**change):
        return from_arrays("notes", X[:20], Y[:20], X[20:], Y[20:], **NATURAL | change)

    one = made()
    assert one.digest == made().digest == one.to("cpu", torch.float64).digest
    other_owner = W[:20].copy()
    other_owner[7] += 1
    without = {"x_unseen": None, "y_unseen": None, "w_unseen": None}
    others = [
        made(w_train=other_owner),
        made(w_train=None, w_test=None),
        made(x_unseen=X[:6]),
        made(y_unseen=Y[:6][::-1].copy()),
        made(w_unseen=THEIRS["w_unseen"] + 1),
        made(**without),
    ]
    assert len({one.digest, *(other.digest for other in others)}) == 7


def test_the_digest_of_a_set_without_owners_is_what_it_was(digits):
    """Recorded before there were owners: stored runs are found by it."""
    plain = from_arrays("plain", X[:20], Y[:20], X[20:], Y[20:])
    assert (plain.digest, digits.digest) == ("44634ecb0e7340f7", "c73da1a711255292")


def test_owners_and_unseen_people_move_to_another_dtype(tmp_path):
    d = load(npz(tmp_path / "notes.npz", **NATURAL)).to("cpu", torch.float64)
    assert d.owners.tolist() == W.tolist()
    assert d.unseen.images(torch.arange(2)).dtype == torch.float64 and d.unseen.owners.dtype == torch.int64


def test_real_handwriting_by_a_hundred_people_and_newcomers(real_images):
    path = real_images / "femnist_writers.npz"
    if not path.exists():
        pytest.skip("no handwriting here")
    d = load(path)
    assert len(d.classes) == 62 and d.own_test == 1677 and len(d.owners.unique()) == 100
    assert len(d.unseen.y) == 2402 and len(d.unseen.owners.unique()) == 79


def programs(page):
    """The Python blocks of a page."""
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.S)


def leaf_folder(folder, users, images, classes=3):
    """A folder of JSON as LEAF's FEMNIST writes it: for each user images of 784 numbers, 1 for white paper."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    user_data = {}
    for user in users:
        x = np.ones((images, 28, 28))
        x[:, 5:8, 5:8] = rng.integers(0, 256, (images, 3, 3)) / 255
        user_data[user] = {"x": x.reshape(images, -1).tolist(), "y": (np.arange(images) % classes).tolist()}
    (folder / "all_data_0.json").write_text(
        json.dumps({"users": users, "num_samples": [images] * len(users), "user_data": user_data})
    )
    return user_data


def test_the_programs_of_the_data_folders_page_make_natural_federations(tmp_path, monkeypatch):
    """From LEAF's FEMNIST, here a folder made up in its form, and from records of one's own."""
    page = Path(data.__file__).parents[1] / "data" / "README.md"
    if not page.exists():
        pytest.skip("no checkout")
    monkeypatch.chdir(tmp_path)
    writers = ["f1", "f2", "f3", "f4", "f5", "f6"]
    written = leaf_folder(tmp_path / "leaf/data/femnist/data/train", writers, 9)
    leaf_folder(tmp_path / "leaf/data/femnist/data/test", writers, 2)
    names = {}
    for block in programs(page):
        exec(compile(block, page.name, "exec"), names)
    d = load(tmp_path / "femnist_writers.npz")
    assert d.in_shape == (1, 28, 28) and len(d.classes) == 62 and d.classes[10] == "A" and d.own_test == 8
    assert (
        d.owners.bincount().tolist() == [0, 11, 11, 11, 11] and d.unseen.owners.bincount()[[0, 5]].tolist() == [11] * 2
    )
    first = np.array(written["f2"]["x"][0]).reshape(28, 28)
    assert d.x[0, 0].tolist() == (255 - np.rint(255 * first)).tolist()  # bright ink on 0
    own = load(tmp_path / "my_records.npz")
    assert len(own.owners.unique()) == 3 and len(own.unseen.owners.unique()) == 1
