import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedecouple_lite.losses import centre_loss, class_means, cross_entropy, distillation, true_class_probability

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.0]], dtype=torch.float64)


def test_the_dynamic_weight_is_the_teachers_probability_of_the_true_class():
    e = [math.exp(v) for v in (2.0, 0.0, -1.0)]
    weight = true_class_probability(LOGITS, torch.tensor([0, 2]))
    assert weight[0].item() == pytest.approx(e[0] / sum(e))
    assert weight[1].item() == pytest.approx(1 / (2 + math.e))


@given(st.integers(0, 1000), st.floats(0.1, 20))
def test_distillation_vanishes_when_teacher_equals_student_and_is_positive_otherwise(seed, temperature):
    a, b = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert torch.equal(distillation(a, a, temperature), torch.zeros(5, dtype=torch.float64))
    assert distillation(a, a + 7.0, temperature).abs().max() < 1e-10  # logits mean nothing up to a constant
    assert (distillation(a, b, temperature) > 0).all()


def test_distillation_by_hand_and_against_pytorch():
    teacher, student = LOGITS[:1], LOGITS[1:]
    p, q = (teacher / 2).softmax(1), (student / 2).softmax(1)
    by_hand = 4 * sum(p[0, c] * math.log(p[0, c] / q[0, c]) for c in range(3))
    assert distillation(student, teacher, 2.0).item() == pytest.approx(by_hand.item())
    kl = torch.nn.functional.kl_div(q.log(), p, reduction="sum") * 4
    assert distillation(student, teacher, 2.0).item() == pytest.approx(kl.item())


def test_class_means_of_three_samples_by_hand():
    z = torch.tensor([[1.0, 2.0], [3.0, 6.0], [10.0, -1.0]])
    means, counts = class_means(z, torch.tensor([1, 1, 0]), 4)
    assert means.tolist() == [[10.0, -1.0], [2.0, 4.0], [0.0, 0.0], [0.0, 0.0]]
    assert counts.tolist() == [1.0, 2.0, 0.0, 0.0]


def test_padding_counts_in_no_class_mean():
    z = torch.tensor([[1.0], [3.0], [99.0]])
    means, counts = class_means(z, torch.tensor([0, 0, 0]), 2, torch.tensor([1.0, 1.0, 0.0]))
    assert means.tolist() == [[2.0], [0.0]] and counts.tolist() == [2.0, 0.0]


def test_centre_loss_by_hand_and_zero_at_the_centre():
    centres = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    assert centre_loss(torch.tensor([[1.0, 3.0]]), torch.tensor([1]), centres).item() == 2.0
    assert centre_loss(centres, torch.tensor([0, 1]), centres).tolist() == [0.0, 0.0]


def test_cross_entropy_gives_one_value_per_sample():
    assert cross_entropy(LOGITS, torch.tensor([0, 1])).shape == (2,)
