import pytest
import torch

from fedecouple_lite.tensors import flat, nbytes, pick, weighted_mean

T = {"extractor.w": torch.tensor([1.0, 2.0]), "classifier.b": torch.tensor([3.0])}


def test_pick_takes_prefixes_and_refuses_a_typing_error():
    assert list(pick(T, "extractor.")) == ["extractor.w"]
    assert pick(T) == {}
    with pytest.raises(ValueError, match=r"prefix='extracter\.' matches no tensor; these begin with"):
        pick(T, "extracter.")


def test_weighted_mean_on_two_clients_by_hand():
    other = {"extractor.w": torch.tensor([5.0, 0.0]), "classifier.b": torch.tensor([7.0])}
    mean = weighted_mean([T, other], [1, 3])
    assert mean["extractor.w"].tolist() == [4.0, 0.5] and mean["classifier.b"].tolist() == [6.0]
    assert T["extractor.w"].tolist() == [1.0, 2.0]  # an argument is never changed


@pytest.mark.parametrize("weights", [[1], [0, 0], [-1, 2], [float("nan"), 1]])
def test_weighted_mean_refuses_weights(weights):
    with pytest.raises(ValueError, match="weights="):
        weighted_mean([T, T], weights)


def test_weighted_mean_refuses_different_names():
    with pytest.raises(ValueError, match="same names"):
        weighted_mean([T, pick(T, "extractor.")], [1, 1])


def test_flat_and_nbytes():
    assert flat(T).tolist() == [1.0, 2.0, 3.0]
    assert nbytes(T) == 12
