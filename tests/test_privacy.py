"""Noise and what it buys: the noise is as long as it says and never drawn twice, what is told is never longer than the
clip, and epsilon is dp-accounting's own."""

import sys
from itertools import combinations, pairwise
from math import inf, sqrt

import numpy as np
import pytest
import torch
from helpers import copied, last, same
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fedecouple_lite import METHODS, DecoupledNet, from_arrays, load, make, rounds, split
from fedecouple_lite.defence import DEFENCE, protect
from fedecouple_lite.faults import ARRIVED, Fault, Outcome, Turn
from fedecouple_lite.security.defences import GaussianNoise
from fedecouple_lite.security.privacy import privacy_spent_to_others, privacy_spent_to_server
from fedecouple_lite.tensors import flat

QUICK = {"lr": 0.05, "epochs": 1, "batch_size": 8}
NET = DecoupledNet(nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.Tanh()), nn.Linear(6, 10), (1, 8, 8))
SHARING = [name for name in METHODS if name != "local"]


def few_digits():
    digits = load("digits")
    x, y = digits.x[:60, 0].numpy(), digits.y[:60].numpy()
    return split(from_arrays("few", x, y, x[:0], y[:0], range(10)), 5, "iid", test_share=0.3)


FEDERATION = few_digits()


def told(upload, download):
    """What an upload tells, as one vector: of the model beside what the client was sent, of all else the whole."""
    differences = []
    for name, tensor in upload.items():
        known = name in download and name.startswith(("extractor.", "classifier."))
        differences.append((tensor.double() - (download[name].double() if known else 0)).flatten())
    return torch.cat(differences)


class Notes(Fault):
    """Keeps what every client was sent and sends, after the defences."""

    def __init__(self):
        self.seen = {}

    def after(self, turn, result):
        self.seen[turn.round, turn.client] = (turn.download, result)
        return Outcome(ARRIVED, result)


def notes_of(name, defences, until=2, **options):
    notes = Notes()
    method = make(name, **QUICK)
    last(rounds(method, NET, FEDERATION, rounds=until, backend="loop", defences=defences, faults=[notes], **options))
    return notes.seen


# --- The noise ---


@pytest.mark.parametrize("name", SHARING)
@pytest.mark.parametrize("clip", [0.05, 1.0])
def test_what_an_upload_tells_is_no_longer_than_the_clip(name, clip):
    """Over all tensors of the upload together: FedPAC's statistics and prototypes, too."""
    for download, result in notes_of(name, [GaussianNoise(clip, 0)]).values():
        whole = told(make(name).upload(result.client), download)
        clipped = told(result.upload, download)
        assert clipped.norm() <= clip * (1 + 1e-5)
        shortened = whole * min(1.0, clip / whole.norm().item())
        assert torch.allclose(clipped, shortened, atol=1e-6)
        assert all(result.upload[n].dtype == result.client[n].dtype for n in result.upload)


numbers = st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(numbers, numbers, st.sampled_from([1e-3, 1.0, 50.0, 1e6]))
def test_an_update_that_is_short_enough_stays_and_a_longer_one_keeps_its_direction(sent_back, more, clip):
    upload = {"extractor.w": torch.tensor(sent_back), "prototypes.means": torch.tensor(more)}
    download = {"extractor.w": torch.ones(len(sent_back)), "prototypes.means": torch.ones(len(more))}
    before = copied(upload), copied(download)
    sent = GaussianNoise(clip, 0).on_client(Turn(0, 0, 1, 2, download, DEFENCE), upload)
    assert same(upload, before[0]) and same(download, before[1])
    whole, clipped = told(upload, download), told(sent, download)
    assert torch.allclose(clipped, whole * min(1.0, clip / max(whole.norm().item(), 1e-300)), atol=1e-4, rtol=1e-5)


def test_the_noise_has_the_standard_deviation_that_it_says_in_every_tensor():
    """Of 40,000 draws each: a standard deviation is then known to 1.5 % with a probability of 1 - 2e-5."""
    download = {"extractor.w": torch.randn(200, 200, dtype=torch.float64, generator=torch.Generator().manual_seed(0))}
    upload = {"extractor.w": download["extractor.w"] + 0.01, "statistics.h": torch.zeros(40_000, dtype=torch.float64)}
    for clip, multiplier in ((1.0, 1.0), (0.2, 3.0), (5.0, 0.1)):
        turn = Turn(3, 0, 1, 2, download, DEFENCE)
        clipped = GaussianNoise(clip, 0).on_client(turn, upload)
        sent = GaussianNoise(clip, multiplier).on_client(turn, upload)
        for name in upload:
            noise = (sent[name] - clipped[name]).flatten()
            assert noise.std().item() == pytest.approx(multiplier * clip, rel=0.015)
            assert abs(noise.mean().item()) < 5 * multiplier * clip / sqrt(40_000)


def test_noise_is_drawn_anew_for_every_tensor_client_round_place_and_seed_and_repeats_for_the_same():
    """Every pair of all that is drawn: no number of one is in another, and they are not alike."""
    upload = {name: torch.zeros(50, dtype=torch.float64) for name in ("extractor.w", "extractor.b", "classifier.w")}
    noise = GaussianNoise(1.0, 1.0)
    keys = [(seed, place, t, k) for seed in (0, 1) for place in (0, 1) for t in (1, 2, 3) for k in range(4)]
    drawn = {}
    for seed, place, t, k in keys:
        turn = Turn(seed, place, t, k, {}, DEFENCE)
        sent = noise.on_client(turn, upload)
        assert same(sent, noise.on_client(turn, upload))
        drawn |= {(seed, place, t, k, name): tensor for name, tensor in sent.items()}
    assert len(drawn) == len(keys) * 3
    assert len(set(torch.cat(list(drawn.values())).tolist())) == 50 * len(drawn)
    largest = max(abs(np.corrcoef(a, b)[0, 1]) for a, b in combinations([t.numpy() for t in drawn.values()], 2))
    assert largest < 0.75  # of 10,296 pairs of 50 independent numbers: 0.75 is 5.3 standard deviations
    fault = Turn(0, 0, 1, 0).rng().standard_normal(50)
    assert not np.isin(fault, torch.cat(list(drawn.values())).numpy()).any()


@pytest.mark.parametrize("name", ["fedavg", "fedpac"])
def test_in_a_run_no_noise_is_drawn_twice(name):
    noisy = notes_of(name, [GaussianNoise(1.0, 0.05)], until=3)
    noises = {}
    for (t, k), (download, result) in noisy.items():
        whole = make(name).upload(result.client)
        clipped = protect([GaussianNoise(1.0, 0)], 0, t, k, download, whole)
        for tensor_name, tensor in result.upload.items():
            if tensor.numel() >= 10:
                noises[t, k, tensor_name] = (tensor.double() - clipped[tensor_name].double()).flatten()[:10]
    assert len(noises) >= 3 * 5 * 3
    for one, other in combinations(noises.values(), 2):
        assert not torch.allclose(one, other, atol=1e-4)


def test_the_server_weighs_all_clients_equally_however_many_images_they_have():
    sizes = (3, 8, 5, 2, 7)
    federation = split(FEDERATION.data, 5, "iid", test_share=0.3)
    uneven = type(federation)(
        federation.data, tuple(i[:n] for i, n in zip(federation.train, sizes, strict=True)), federation.test
    )
    notes = Notes()
    options = {"defences": [GaussianNoise(1.0, 0.1)], "faults": [notes], "backend": "loop"}
    state = last(rounds(make("fedavg", **QUICK), NET, uneven, rounds=1, **options))
    uploads = [result.upload for _, result in notes.seen.values()]
    expected = torch.stack([flat(upload) for upload in uploads]).mean(dim=0)
    assert torch.allclose(flat({n: state.server[n] for n in uploads[0]}), expected, atol=1e-6)


def test_whole_numbers_are_refused():
    upload = {"extractor.w": torch.zeros(2), "extractor.seen": torch.tensor(3)}
    with pytest.raises(ValueError, match=r"upload holds extractor\.seen in torch\.int64; GaussianNoise takes"):
        GaussianNoise(1.0, 1.0).on_client(Turn(0, 0, 1, 0, {}, DEFENCE), upload)


# --- The privacy ---


def by_dp_accounting(event, times, delta):
    import dp_accounting
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant(neighboring_relation=dp_accounting.NeighboringRelation.REPLACE_ONE)
    return accountant.compose(event, times).get_epsilon(delta)


@pytest.mark.parametrize(("multiplier", "joined", "delta"), [(1.0, 1, 1e-5), (4.0, 20, 1e-5), (8.0, 100, 1e-3)])
def test_towards_the_server_it_is_a_gaussian_mechanism_of_sensitivity_two_clips_every_round(multiplier, joined, delta):
    dp_accounting = pytest.importorskip("dp_accounting")
    expected = by_dp_accounting(dp_accounting.GaussianDpEvent(multiplier / 2), joined, delta)
    assert privacy_spent_to_server(multiplier, joined, delta) == expected


@pytest.mark.parametrize(
    ("multiplier", "clients", "cohort", "rounds_", "delta"),
    [(2.0, 100, 10, 50, 1e-5), (4.0, 1000, 20, 200, 1e-6), (1.0, 20, 4, 10, 1e-3)],
)
def test_towards_others_the_cohorts_noises_add_up_and_it_is_drawn_without_replacement(
    multiplier, clients, cohort, rounds_, delta
):
    dp = pytest.importorskip("dp_accounting")
    of_sum = dp.GaussianDpEvent(sqrt(cohort) * multiplier / 2)  # sqrt(cohort) multiplier clip, over 2 clip
    expected = by_dp_accounting(dp.SampledWithoutReplacementDpEvent(clients, cohort, of_sum), rounds_, delta)
    known = by_dp_accounting(of_sum, rounds_, delta)
    assert privacy_spent_to_others(multiplier, clients, cohort, rounds_, delta) == expected < known
    assert privacy_spent_to_others(multiplier, clients, cohort, rounds_, delta, secret_cohorts=False) == known
    to_server = privacy_spent_to_server(multiplier, rounds_, delta)
    assert known < to_server


def test_where_everybody_takes_part_there_is_nothing_to_guess():
    pytest.importorskip("dp_accounting")
    everybody = privacy_spent_to_others(1.0, 16, 16, 10, 1e-5)
    assert everybody == pytest.approx(privacy_spent_to_server(4.0, 10, 1e-5))
    almost = privacy_spent_to_others(1.0, 17, 16, 10, 1e-5)
    assert almost <= everybody * (1 + 1e-12)  # the bound for drawing is looser there, and not the one to take
    assert privacy_spent_to_others(3.0, 1, 1, 5, 1e-5) == pytest.approx(privacy_spent_to_server(3.0, 5, 1e-5))


def test_those_who_put_together_what_they_know_take_their_noise_off():
    pytest.importorskip("dp_accounting")
    spent = [privacy_spent_to_others(2.0, 50, 10, 20, 1e-5, colluding=c) for c in (0, 1, 5, 9)]
    assert all(a < b for a, b in pairwise(spent))
    by_hand = privacy_spent_to_others(2.0 * sqrt(5 / 10), 45, 10, 20, 1e-5)
    assert spent[2] == pytest.approx(by_hand)
    alone = privacy_spent_to_others(2.0, 50, 10, 20, 1e-5, colluding=9, secret_cohorts=False)
    assert alone == privacy_spent_to_server(2.0, 20, 1e-5)


def test_epsilon_falls_with_noise_and_rises_with_rounds():
    pytest.importorskip("dp_accounting")
    for spent in (
        lambda m, r: privacy_spent_to_server(m, r, 1e-5),
        lambda m, r: privacy_spent_to_others(m, 20, 5, r, 1e-5),
    ):
        by_noise = [spent(multiplier, 10) for multiplier in (0.1, 0.5, 1, 2, 8, 64)]
        by_rounds = [spent(2.0, r) for r in (1, 2, 10, 100)]
        assert all(a > b > 0 for a, b in pairwise(by_noise))
        assert all(0 < a < b < inf for a, b in pairwise(by_rounds))
        assert spent(0, 1) == spent(0.0, 10) == inf


def test_a_larger_delta_or_a_larger_crowd_spends_less():
    pytest.importorskip("dp_accounting")
    assert privacy_spent_to_server(2.0, 10, 1e-3) < privacy_spent_to_server(2.0, 10, 1e-6)
    crowds = [privacy_spent_to_others(2.0, clients, 10, 10, 1e-5) for clients in (20, 100, 1000)]
    assert all(a > b for a, b in pairwise(crowds))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"multiplier": -1}, "multiplier=-1 must be 0, or a number from 1e-6 to 1e6"),
        ({"multiplier": inf}, "multiplier=inf must be"),
        ({"multiplier": 1e200}, r"multiplier=1e\+200 must be"),  # more than the accountant can count with
        ({"multiplier": 1e-200}, "multiplier=1e-200 must be"),
        ({"multiplier": None}, "multiplier=None must be"),
        ({"clients": 0}, "clients=0 must be a whole number >= 1"),
        ({"cohort": 0}, "cohort=0 must be"),
        ({"cohort": 2.0}, "cohort=2.0 must be"),
        ({"cohort": 21}, "cohort=21 must be at most clients=20"),
        ({"rounds": 0}, "rounds=0 must be"),
        ({"delta": 0}, "delta=0 must be above 0 and below 1"),
        ({"delta": 1.0}, "delta=1.0 must be"),
        ({"colluding": 5}, "colluding=5 must be a whole number >= 0 and below cohort=5"),
        ({"secret_cohorts": 1}, "secret_cohorts=1 must be True or False"),
    ],
)
def test_an_argument_that_cannot_be_is_named(options, message):
    good = {"multiplier": 1.0, "clients": 20, "cohort": 5, "rounds": 3, "delta": 1e-5}
    with pytest.raises(ValueError, match=message):
        privacy_spent_to_others(**good | options)
    both = {name: options[name] for name in options if name in ("multiplier", "delta")}
    if both:
        with pytest.raises(ValueError, match=message):
            privacy_spent_to_server(**{"multiplier": 1.0, "rounds_joined": 3, "delta": 1e-5} | both)
    with pytest.raises(ValueError, match="rounds_joined=0 must be a whole number >= 1"):
        privacy_spent_to_server(1.0, 0, 1e-5)


def test_without_dp_accounting_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    for spent in (
        lambda m: privacy_spent_to_server(m, 10, 1e-5),
        lambda m: privacy_spent_to_others(m, 20, 5, 10, 1e-5),
    ):
        for multiplier in (1.0, 0):
            with pytest.raises(ImportError, match=r'pip install "fedecouple-lite\[security\]"'):
                spent(multiplier)
