"""Defences: what they compute, by hand; how many attackers they bear, whatever these send; and that a run without them
is what it was."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from helpers import copied, difference, last, same
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fedecouple_lite import METHODS, DecoupledNet, from_arrays, load, make, rounds, split
from fedecouple_lite.defence import Defence, Received
from fedecouple_lite.faults import ARRIVED, Broken, DropBefore, Fault, Outcome
from fedecouple_lite.methods import FedAvg
from fedecouple_lite.methods.fedecouple import similarity_weights
from fedecouple_lite.security.defences import (
    ClipNorm,
    CoordinateMedian,
    GaussianNoise,
    Krum,
    MultiKrum,
    SimilarityWeights,
    TrimmedMean,
    krum_scores,
    trimmed_mean,
)
from fedecouple_lite.security.poisoning import SignFlip
from fedecouple_lite.tensors import pick

QUICK = {"lr": 0.05, "epochs": 1, "batch_size": 8}
CLIENTS = 5
NET = DecoupledNet(nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.Tanh()), nn.Linear(6, 10), (1, 8, 8))
DEFENCES = {
    "median": CoordinateMedian(),
    "trimmed": TrimmedMean(0.2),
    "krum": Krum(1),
    "multi-krum": MultiKrum(1, keep=3),
    "clip": ClipNorm(0.1),
    "similarity": SimilarityWeights(),
    "noise": GaussianNoise(clip=1.0, multiplier=0.01),
}
SERVER = {"extractor.w": torch.zeros(2), "classifier.b": torch.zeros(1)}


def few_digits():
    """60 digits over five clients, of 12 each."""
    digits = load("digits")
    x, y = digits.x[:60, 0].numpy(), digits.y[:60].numpy()
    return split(from_arrays("few", x, y, x[:0], y[:0], range(10)), CLIENTS, "iid", test_share=0.3)


FEDERATION = few_digits()


def run(name, until=1, **options):
    method = make(name, **QUICK) if isinstance(name, str) else name
    options = {"backend": "loop", **options}
    return last(rounds(method, NET, FEDERATION, rounds=until, **options))


def equal(a, b):
    return same(a.server, b.server) and all(same(x, y) for x, y in zip(a.clients, b.clients, strict=True))


def figures(state):
    return str([{k: v for k, v in record.items() if k != "seconds"} for record in state.records])


def uploads_of(rows):
    """One upload for each row of three numbers, from client 10 on, beside something that is no part of the model."""
    uploads = {}
    for k, row in enumerate(rows):
        row = torch.tensor(row, dtype=torch.float32)
        uploads[10 + k] = {"extractor.w": row[:2], "classifier.b": row[2:], "statistics.v": torch.tensor(k + 0.5)}
    return uploads


def on_server(defence, rows):
    uploads = uploads_of(rows)
    return defence.on_server(SERVER, uploads, {k: 1 + k for k in uploads})


def rows_of(received):
    """What the server would average: (K, 3)."""
    return [[*upload["extractor.w"].tolist(), *upload["classifier.b"].tolist()] for upload in received.uploads.values()]


# --- By hand ---


@pytest.mark.parametrize(
    ("defence", "rows", "expected"),
    [
        (CoordinateMedian(), [[1, 9, 0], [2, 8, 0], [6, 1, 5]], [2, 8, 0]),
        (CoordinateMedian(), [[1, 9, 0], [2, 8, 0], [6, 1, 5], [1e30, -1e30, 4]], [4, 4.5, 2]),
        (TrimmedMean(0.25), [[1, 9, 0], [2, 8, 0], [6, 1, 5], [1e30, -1e30, 4]], [4, 4.5, 2]),
        (TrimmedMean(0.2), [[1, 0, 0], [2, 3, 0], [6, 3, 5], [1, 6, 4], [-1e30, 1e30, 1]], [4 / 3, 4, 5 / 3]),
        (TrimmedMean(0.2), [[1, 0, 0], [2, 3, 0], [6, 3, 5], [1, 6, 4]], [2.5, 3, 2.25]),  # 0.2 * 4: none is cut
        (TrimmedMean(0), [[1, 9, 0], [2, 8, 0], [6, 1, 6]], [3, 6, 2]),
        (TrimmedMean(0.49), [[1, 9, 0], [3, 8, 0]], [2, 8.5, 0]),
    ],
)
def test_robust_means_by_hand(defence, rows, expected):
    received = on_server(defence, rows)
    for row in rows_of(received):
        assert row == pytest.approx(expected)
    assert [upload["statistics.v"].item() for upload in received.uploads.values()] == [
        k + 0.5 for k in range(len(rows))
    ]
    assert received.weights == {10 + k: 11 + k for k in range(len(rows))}


def test_a_share_that_rounding_makes_smaller_still_cuts_what_it_says():
    rows = [[k, k, k] for k in (*range(7), 100, 1000, 10000)]
    assert 0.29 * 100 < 29 and rows_of(on_server(TrimmedMean(0.3), rows))[0] == [4.5, 4.5, 4.5]
    hundred = [[k, k, k] for k in (*range(71), *[10**6] * 29)]
    assert rows_of(on_server(TrimmedMean(0.29), hundred))[0][0] < 71


def test_in_double_precision_rounding_takes_no_mean_out_of_its_values():
    tenths = torch.full((3, 1), 0.1, dtype=torch.float64)
    assert (0.1 + 0.1 + 0.1) / 3 > 0.1 and trimmed_mean(tenths, 0).item() == 0.1


ROWS = [[0, 0, 0], [1, 0, 0], [0, 3, 0], [0, 0, 2], [100, 100, 0]]


def test_krum_by_hand():
    """Of five with one attacker the two nearest count. Squared distances: between the first four 1, 9, 4, 10, 5, 13."""
    vectors = torch.tensor(ROWS, dtype=torch.float32)
    assert krum_scores(vectors, 1).tolist() == [1 + 4, 1 + 5, 9 + 10, 4 + 5, 99**2 + 100**2 + 100**2 + 97**2]
    assert rows_of(on_server(Krum(1), ROWS)) == [[0, 0, 0]]
    received = on_server(MultiKrum(1, keep=3), ROWS)
    assert list(received.uploads) == [10, 11, 13] and received.weights == {10: 11, 11: 12, 13: 14}
    assert same(received.uploads[13], uploads_of(ROWS)[13])
    assert same(on_server(Krum(1), ROWS).uploads[10], on_server(MultiKrum(1, 1), ROWS).uploads[10])


def test_of_equal_scores_the_client_with_the_lower_number_wins_in_whatever_order_they_come():
    square = [[0, 0, 0], [0, 1, 0], [1, 0, 0], [1, 1, 0]]
    uploads = uploads_of(square)
    backwards = dict(reversed(uploads.items()))
    for given_ in (uploads, backwards):
        assert list(Krum(0).on_server(SERVER, given_, dict.fromkeys(given_, 1)).uploads) == [10]
        assert list(MultiKrum(0, 2).on_server(SERVER, given_, dict.fromkeys(given_, 1)).uploads) == [10, 11]


def test_clipping_shortens_what_is_too_long_over_all_that_is_averaged_and_leaves_the_rest():
    server = {"extractor.w": torch.tensor([1.0, 1.0]), "classifier.b": torch.tensor([1.0])}
    uploads = uploads_of([[3, 4, 13], [1, 1.3, 1.4], [1, 1, 1]])  # updates (2, 3, 12), |.|^2 = 157; (0, .3, .4), 0.5
    received = ClipNorm(0.5).on_server(server, uploads, dict.fromkeys(uploads, 2))
    shortened = 0.5 / 157**0.5
    assert rows_of(received)[0] == pytest.approx([1 + 2 * shortened, 1 + 3 * shortened, 1 + 12 * shortened])
    assert rows_of(received)[1] == pytest.approx([1, 1.3, 1.4]) and same(received.uploads[12], uploads[12])
    assert all(same(pick(received.uploads[k], "statistics."), pick(uploads[k], "statistics.")) for k in uploads)
    assert rows_of(ClipNorm(0.5).on_server(server, uploads_of([[3e30, 1, 1]]), {10: 1}))[0] == pytest.approx(
        [1.5, 1, 1]
    )


def test_similarity_weighs_by_the_mean_cosine_of_extractors():
    received = on_server(SimilarityWeights(), [[1, 0, 9], [0, 2, 9], [3, 3, -9], [-1, 0, 9]])
    half = 0.5**0.5
    expected = {10: 0, 11: half / 3, 12: half / 3, 13: 0}  # (0 + half - 1) / 3, (half) / 3, (2 half - half) / 3, ...
    assert received.weights == pytest.approx(expected, abs=1e-6)
    assert rows_of(received) == [[1, 0, 9], [0, 2, 9], [3, 3, -9], [-1, 0, 9]]


def test_noise_makes_all_weights_one():
    assert on_server(GaussianNoise(1.0, 1.0), ROWS).weights == dict.fromkeys(range(10, 15), 1.0)


# --- Attackers, whatever they send ---

MOST = float(np.float32(1e30))
huge = st.floats(-MOST, MOST, width=32)
small = st.floats(-10, 10, width=32)
honest_rows = st.integers(1, 6).flatmap(
    lambda n: st.lists(st.lists(small, min_size=3, max_size=3), min_size=n, max_size=n)
)


def lies(draw, number):
    return draw(st.lists(st.lists(huge, min_size=3, max_size=3), min_size=number, max_size=number))


def within(row, honest):
    lowest, highest = np.min(honest, axis=0), np.max(honest, axis=0)
    return (np.array(row) >= lowest).all() and (np.array(row) <= highest).all()


@settings(max_examples=60, deadline=None)
@given(honest_rows, st.data())
def test_the_median_bears_all_but_half_of_the_clients(honest, data):
    attackers = lies(data.draw, data.draw(st.integers(0, len(honest) - 1)))
    rows = data.draw(st.permutations(honest + attackers))
    assert all(within(row, honest) for row in rows_of(on_server(CoordinateMedian(), rows)))


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 0.499), honest_rows, st.data())
def test_the_trimmed_mean_bears_as_many_as_it_cuts_at_one_end(share, honest, data):
    most = max(f for f in range(len(honest)) if f <= int(share * (len(honest) + f) + 1e-9))
    rows = data.draw(st.permutations(honest + lies(data.draw, most)))
    assert all(within(row, honest) for row in rows_of(on_server(TrimmedMean(share), rows)))


def test_with_one_attacker_more_they_do_not():
    honest = [[1.0, 2.0, 3.0], [2.0, 1.0, 4.0], [1.5, 1.0, 3.0]]
    lie = [1e30, -1e30, 1e30]
    for defence, attackers in ((CoordinateMedian(), 3), (TrimmedMean(0.2), 2), (TrimmedMean(0), 1)):
        for row in rows_of(on_server(defence, honest + [lie] * attackers)):
            assert not within(row, honest)
    assert within(rows_of(on_server(CoordinateMedian(), honest + [lie] * 2))[0], honest)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 3), st.integers(0, 2), st.data())
def test_krum_picks_no_attacker_that_is_far_away(f, more, data):
    """Far: further from the honest clients than these are from each other, in all."""
    n = 2 * f + 3 + more
    close = st.lists(small, min_size=3, max_size=3)
    honest = data.draw(st.lists(close, min_size=n - f, max_size=n - f))
    far = st.lists(st.floats(1e4, MOST, width=32), min_size=3, max_size=3)
    attackers = data.draw(st.lists(far, min_size=f, max_size=f))
    if attackers and data.draw(st.booleans()):
        attackers = attackers[:1] * f  # all together in one place
    rows = data.draw(st.permutations(honest + attackers))
    kept = [Krum(f), MultiKrum(f, 1), MultiKrum(f, n - f)]
    for defence in kept:
        assert all(max(row) <= 10 for row in rows_of(on_server(defence, rows)))


@pytest.mark.parametrize("name", ["median", "trimmed", "krum", "multi-krum", "similarity"])
@settings(max_examples=20, deadline=None)
@given(row=st.lists(huge, min_size=3, max_size=3), n=st.integers(5, 9))
def test_equal_uploads_stay_as_they_are(name, row, n):
    received = on_server(DEFENCES[name], [row] * n)
    assert len(received.uploads) == {"krum": 1, "multi-krum": 3}.get(name, n)
    assert all(kept == torch.tensor(row, dtype=torch.float32).tolist() for kept in rows_of(received))
    if name == "similarity":
        assert max(received.weights.values()) == pytest.approx(min(received.weights.values()))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(small, min_size=3, max_size=3), min_size=5, max_size=8), st.data())
def test_the_order_of_clients_does_not_matter(rows, data):
    uploads = uploads_of(rows)
    weights = {k: 1 + k for k in uploads}
    order = data.draw(st.permutations(list(uploads)))
    mixed = {k: uploads[k] for k in order}
    for name in ("median", "trimmed", "krum", "multi-krum", "clip"):
        here = DEFENCES[name].on_server(SERVER, uploads, weights)
        there = DEFENCES[name].on_server(SERVER, mixed, {k: weights[k] for k in order})
        assert here.uploads.keys() == there.uploads.keys() and here.weights == there.weights
        assert all(same(here.uploads[k], there.uploads[k]) for k in here.uploads)


def test_one_client_alone_goes_through():
    for name in ("median", "trimmed", "similarity", "noise"):
        received = on_server(DEFENCES[name], [[3.0, 4.0, 5.0]])
        assert rows_of(received) == [[3.0, 4.0, 5.0]] and received.weights[10] > 0
    with pytest.raises(ValueError, match=r"attackers=0 must be such that 2 attackers \+ 3 = 3 uploads .* there are 1"):
        on_server(Krum(0), [[3.0, 4.0, 5.0]])


@pytest.mark.parametrize("name", DEFENCES)
def test_no_tensor_of_an_argument_changes(name):
    server, uploads = copied(SERVER), uploads_of(ROWS)
    before = {k: copied(upload) for k, upload in uploads.items()}
    weights = {k: k for k in uploads}
    DEFENCES[name].on_server(server, uploads, weights)
    assert same(server, SERVER) and all(same(uploads[k], before[k]) for k in before) and uploads.keys() == before.keys()
    assert weights == {k: k for k in uploads}


# --- In a run ---


@pytest.mark.parametrize("backend", ["loop", "vmap"])
@pytest.mark.parametrize("name", [name for name in METHODS if name != "local"])
def test_a_defence_that_does_nothing_changes_nothing_to_the_bit(name, backend):
    options = {"until": 2, "participation": 0.8, "backend": backend}
    before, after = run(name, **options), run(name, defences=[Defence(), Defence()], **options)
    assert equal(before, after) and figures(before) == figures(after)


@pytest.mark.parametrize("defence", DEFENCES)
@pytest.mark.parametrize("name", [name for name in METHODS if name != "local"])
def test_every_method_runs_with_every_defence(name, defence):
    if defence == "similarity" and name == "lg_fedavg":
        return  # which sends no extractor: refused below
    before = run(name, until=2)
    after = run(name, until=2, defences=[DEFENCES[defence]])
    tensors = [tensor for tensors in (after.server, *after.clients) for tensor in tensors.values()]
    assert all(torch.isfinite(tensor).all() for tensor in tensors)
    assert after.server.keys() >= pick(before.server, *make(name).shared[:1]).keys()
    assert not same(pick(after.server, make(name).shared[0]), pick(before.server, make(name).shared[0]))


@pytest.mark.parametrize("name", ["fedavg", "fedrep", "fedpac"])
def test_the_servers_next_tensors_are_the_robust_value_but_for_rounding(name):
    """By hand from the uploads of one round, in which everybody is honest."""
    plain, state = run(name), run(name, defences=[CoordinateMedian()])
    method = make(name)
    uploads = [method.upload(client) for client in plain.clients]
    for tensor_name, tensor in pick(state.server, "extractor.").items():
        median = torch.stack([upload[tensor_name] for upload in uploads]).median(dim=0).values  # of five
        assert torch.allclose(tensor, median, rtol=1e-6, atol=1e-7)
    others = {n: t for n, t in plain.server.items() if not n.startswith(method.shared)}
    assert all(torch.equal(state.server[n], t) for n, t in others.items())


def test_whom_krum_leaves_out_gets_no_mixture_from_fedpac():
    """It keeps what it had: its own classifier in the first rounds, its last mixture later."""
    first = run("fedpac", defences=[Krum(1)])
    mixed = {name.split(".")[1] for name in first.server if name.startswith("mixed.")}
    assert len(mixed) == 1
    later = run("fedpac", until=2, state=run("fedpac"), defences=[Krum(1)])
    before = run("fedpac").server
    changed = {
        n.split(".")[1] for n, t in later.server.items() if n.startswith("mixed.") and not torch.equal(t, before[n])
    }
    assert len(changed) == 1


def test_similarity_weights_are_those_of_fedecouple():
    by_method = run(make("fedecouple", aggregation="similarity", **QUICK), until=2)
    by_defence = run("fedecouple", until=2, defences=[SimilarityWeights()])
    assert equal(by_method, by_defence)
    method = make("fedavg", **QUICK)
    uploads = {k: method.upload(client) for k, client in enumerate(run("fedavg").clients)}
    start = method.init_server(NET.init(0))
    weights = similarity_weights(start, uploads)
    expected = sum(w * uploads[k]["extractor.1.weight"] for k, w in enumerate(weights)) / sum(weights)
    assert torch.allclose(
        run("fedavg", defences=[SimilarityWeights()]).server["extractor.1.weight"], expected, atol=1e-6
    )


NOISY = [GaussianNoise(0.5, 0.1), ClipNorm(0.4), TrimmedMean(0.25)]


@pytest.mark.parametrize("name", ["fedavg", "fedpac", "fedecouple"])
def test_a_run_with_defences_resumed_equals_the_uninterrupted_one(name):
    options = {"defences": NOISY, "participation": 0.8, "faults": [DropBefore(0.1)], "min_uploads": 1}
    whole = run(name, until=3, **options)
    resumed = run(name, until=3, state=run(name, until=1, **options), **options)
    assert equal(whole, resumed) and figures(whole) == figures(resumed)


def test_all_backends_draw_the_same_noise():
    loop, threads, vmap = (run("fedavg", until=2, defences=NOISY, backend=b) for b in ("loop", "threads", "vmap"))
    assert equal(loop, threads)
    assert difference(loop, vmap) < 1e-4 < difference(loop, run("fedavg", until=2, defences=NOISY, seed=1))


@dataclass(frozen=True)
class Plus(Defence):
    """Adds to every number that leaves, and multiplies what the server receives."""

    summand: float
    factor: float = 1.0

    def on_client(self, turn, upload):
        return {name: tensor + self.summand for name, tensor in upload.items()}

    def on_server(self, server, uploads, weights):
        return Received({k: {n: t * self.factor for n, t in u.items()} for k, u in uploads.items()}, weights)


def test_defences_act_one_after_the_other_and_on_what_is_sent_alone():
    plain, state = run("fedavg"), run("fedavg", defences=[Plus(1.0, 2.0), Plus(2.0, 3.0), CoordinateMedian()])
    robust = run("fedavg", defences=[CoordinateMedian()])
    for name, tensor in robust.server.items():
        assert torch.allclose(state.server[name], 6 * (tensor + 3), atol=1e-5)
    assert all(same(a, b) for a, b in zip(plain.clients, state.clients, strict=True))


def test_an_attacker_acts_after_the_defences_of_clients_and_sees_what_it_was_sent():
    seen = {}

    @dataclass(frozen=True)
    class Looks(Fault):
        def after(self, turn, result):
            seen[turn.round, turn.client] = turn.download, result
            return Outcome(ARRIVED, result)

    states = list(rounds(make("fedavg", **QUICK), NET, FEDERATION, rounds=2, faults=[Looks()], defences=[Plus(1.0)]))
    assert len(seen) == 2 * CLIENTS
    for (t, _), (download, result) in seen.items():
        assert same(download, NET.init(0) if t == 1 else states[0].server)
        assert all(torch.equal(tensor, result.client[name] + 1) for name, tensor in result.upload.items())


def test_what_a_defence_spoils_is_inspected_like_everything_that_is_sent():
    @dataclass(frozen=True)
    class Spoils(Defence):
        def on_client(self, turn, upload):
            return {name: tensor[None] for name, tensor in upload.items()} if turn.client == 2 else upload

    state = run("fedavg", defences=[Spoils()], min_uploads=4)
    assert state.records[-1]["faults"]["refused"] == [2]
    with pytest.raises(ValueError, match=r"FedAvg, client 2, round 1: its upload holds \S+ of shape \(1, "):
        run("fedavg", defences=[Spoils()])


@pytest.mark.parametrize("defence", ["median", "trimmed", "krum", "multi-krum"])
def test_one_attacker_who_ruins_the_mean_is_borne(defence):
    attack = [SignFlip([3], scale=1e6)]
    honest, ruined = run("fedavg").server, run("fedavg", faults=attack).server
    borne = run("fedavg", faults=attack, defences=[DEFENCES[defence]]).server
    name = "extractor.1.weight"
    assert (ruined[name] - honest[name]).norm() > 1e4 * (borne[name] - honest[name]).norm()


# --- What cannot be ---


@pytest.mark.parametrize(
    ("make_defence", "message"),
    [
        (lambda: TrimmedMean(0.5), r"share=0.5 must be at least 0 and below 0.5"),
        (lambda: TrimmedMean(-0.1), r"share=-0.1 must be"),
        (lambda: TrimmedMean(float("nan")), r"share=nan must be"),
        (lambda: TrimmedMean("0.1"), r"share='0.1' must be"),
        (lambda: Krum(-1), r"attackers=-1 must be a whole number >= 0"),
        (lambda: Krum(1.0), r"attackers=1.0 must be"),
        (lambda: MultiKrum(True, 1), r"attackers=True must be"),
        (lambda: MultiKrum(1, 0), r"keep=0 must be a whole number >= 1"),
        (lambda: ClipNorm(0), r"most=0 must be a number above 0"),
        (lambda: ClipNorm(float("inf")), r"most=inf must be"),
        (lambda: GaussianNoise(0, 1), r"clip=0 must be a number above 0"),
        (lambda: GaussianNoise(1, -1), r"multiplier=-1 must be a number >= 0"),
        (lambda: GaussianNoise(1, float("inf")), r"multiplier=inf must be"),
    ],
)
def test_a_defence_outside_its_range_is_refused(make_defence, message):
    with pytest.raises(ValueError, match=message):
        make_defence()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fedavg", {"defences": Krum(1)}, r"defences=Krum\(attackers=1\) must be a list of defences, such as \["),
        ("fedavg", {"defences": ["krum"]}, r"defences=\['krum'\] must be a list of defences"),
        ("fedavg", {"defences": [Krum(2)]}, r"attackers=2 must be .* 7 uploads come together .* but there are 5"),
        ("fedavg", {"defences": [Krum(1)], "participation": 0.8}, r"attackers=1 must be .* 5 uploads .* there are 4"),
        (
            "fedavg",
            {"defences": [MultiKrum(1, 5)]},
            r"keep=5 must be at most 4, the 5 uploads of a round less attackers",
        ),
        ("lg_fedavg", {"defences": [SimilarityWeights()]}, r"uploads hold an extractor; those of LGFedAvg hold none"),
        ("local", {"defences": [CoordinateMedian()]}, r"must be empty for Local, whose clients upload nothing"),
    ],
)
def test_defences_that_cannot_be_are_named_before_any_work(monkeypatch, name, options, message):
    monkeypatch.setattr("fedecouple_lite.engine.train_cohort", None)
    with pytest.raises(ValueError, match=message):
        run(name, **options)


def test_too_few_uploads_in_a_round_are_named():
    """Five are drawn, but one of them is refused."""
    options = {"faults": [Broken([2], "extra")], "min_uploads": 1}
    with pytest.raises(ValueError, match=r"attackers=1 must be .* 5 uploads come together in a round, but there are 4"):
        run("fedavg", defences=[Krum(1)], **options)
    assert run("fedavg", defences=[MultiKrum(0, 4)], **options).round == 1
    with pytest.raises(ValueError, match=r"keep=5 must be at most 4, the 4 uploads that arrived less attackers"):
        run("fedavg", defences=[MultiKrum(0, 5)], **options)


def test_uploads_of_which_the_server_averages_nothing_are_refused():
    @dataclass(frozen=True)
    class Elsewhere(FedAvg):
        def upload(self, client):
            return {f"sent.{name}": tensor for name, tensor in client.items()}

    with pytest.raises(ValueError, match=r"uploads hold \['sent\..* averages nothing: nothing to defend"):
        run(Elsewhere(**QUICK), defences=[CoordinateMedian()])
