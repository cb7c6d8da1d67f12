import numpy as np
import pytest
import torch
from helpers import arrays

from fedecouple_lite import data
from fedecouple_lite.data import from_arrays, load


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
}


@pytest.mark.parametrize("message", BAD)
def test_an_unusable_npz_says_what_is_wrong(tmp_path, message):
    path = npz(tmp_path / "bad.npz", **BAD[message])
    with pytest.raises(ValueError, match=rf"dataset='.*bad\.npz' cannot be used: .*{message}"):
        load(path)


def test_a_damaged_or_missing_file_is_named(tmp_path):
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04 half a file")
    for name in ("torn.npz", "none.npz"):
        with pytest.raises(ValueError, match=rf"dataset='.*{name}' cannot be used"):
            load(str(tmp_path / name))


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


def test_emnist_is_read_from_idx_files_and_stands_upright(tmp_path, monkeypatch):
    """torchvision's own reader on generated idx files: EMNIST stores every image transposed."""
    raw = tmp_path / "EMNIST" / "raw"
    raw.mkdir(parents=True)
    lying = np.arange(2 * 28 * 28, dtype=np.uint32).reshape(2, 28, 28).astype(np.uint8)
    for part in ("train", "test"):
        head = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in (2, 28, 28))
        (raw / f"emnist-balanced-{part}-images-idx3-ubyte").write_bytes(head + lying.tobytes())
        (raw / f"emnist-balanced-{part}-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 2, 3, 46]))
    monkeypatch.setenv("FEDECOUPLE_DATA", str(tmp_path))
    d = load("emnist")
    assert len(d.classes) == 47 and d.y.tolist() == [3, 46, 3, 46]
    assert np.array_equal(d.x[0, 0].numpy(), lying[0].T)


def test_real_fashion_mnist_through_torchvision(real_images, monkeypatch):
    monkeypatch.setenv("FEDECOUPLE_DATA", str(real_images))
    d = load("fashion_mnist")
    assert d.x.shape == (70000, 1, 28, 28) and abs(d.mean.item() / 255 - 0.2860) < 1e-4
