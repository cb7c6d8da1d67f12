"""What attackers reach, and what helps against them: four methods under the same attacks.

    python benchmarks/security.py poisoning              # half an hour on 2 cores
    python benchmarks/security.py backdoor membership inversion privacy

Digits, three seeds, nothing tuned. Each part writes data/results/security/PART.csv (a row per setting, method and seed)
and PART.json (settings and versions). Interrupted, it goes on where it stopped: what is finished lies in runs/security.
"""

import argparse
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial

import numpy as np
import torch
from published import RESULTS, RUNS, Job, Row, rows_of, versions, write_about
from stability import CLIENTS, FOUR, SEEDS, digits, of_methods

from fedecouple_lite import Federation, load, net_for, rounds, split
from fedecouple_lite.course.demonstrations import ATTACKS
from fedecouple_lite.defence import Defence
from fedecouple_lite.methods import FedAvg
from fedecouple_lite.security import membership as mia
from fedecouple_lite.security.defences import ClipNorm, CoordinateMedian, GaussianNoise, MultiKrum, SimilarityWeights
from fedecouple_lite.security.inversion import (
    Observation,
    PixelRange,
    class_mix_from,
    first_round,
    in_round,
    invert,
    labels_from,
    likeness,
)
from fedecouple_lite.security.messages import COUNTS, class_mix_of, look
from fedecouple_lite.security.poisoning import (
    ScaledUpdate,
    backdoor_success,
    draw_attackers,
    honest_accuracy,
    plant_backdoor,
)
from fedecouple_lite.security.privacy import privacy_spent_to_others, privacy_spent_to_server
from fedecouple_lite.studies.experiment import SUMMARY_ROUNDS
from fedecouple_lite.tensors import CLASSIFIER

TABLES = RESULTS / "security"
OUR_RUNS = RUNS / "security"
ROUNDS = 15
SHARES = (0.1, 0.2, 0.4)  # of the clients, who attack
MOST = round(max(SHARES) * CLIENTS)  # attackers that a server prepares for
# What the server does with what it receives.
AGGREGATIONS: dict[str, list[Defence]] = {
    "size": [],
    "similarity": [SimilarityWeights()],
    "median": [CoordinateMedian()],
    "multi-Krum": [MultiKrum(attackers=MOST, keep=CLIENTS - MOST)],
}
TARGET = 0  # the class that a backdoor leads to
BACKDOOR_SHARE = 0.1
CLIP = 1.0  # of an update, against attackers
# (clip, multiplier) of the noise; (inf, 0) is nothing at all
NOISES = (
    (float("inf"), 0.0),
    (1.0, 0.0),
    (1.0, 0.1),
    (0.3, 0.0),
    (0.3, 0.1),
    (0.3, 0.3),
    (0.3, 1.0),
)
DELTA = 1e-3


# --- Poisoning ---


def poisoning() -> Iterator[Job]:
    """A share of the clients flips the sign of what it has learned, or its labels; the server averages by size, by
    similarity, takes the median, or the mean of what multi-Krum selects. Of honest clients."""
    for aggregation in AGGREGATIONS:
        for label, method, seed in of_methods(FOUR):
            said = {"attack": "none", "share": 0.0, "aggregation": aggregation}
            yield said, label, method, seed, partial(run_poisoned, method, seed, "sign flip", 0.0, aggregation)
    for attack in ("sign flip", "label flip"):
        for share in SHARES:
            for aggregation in AGGREGATIONS:
                for label, method, seed in of_methods(FOUR):
                    said = {"attack": attack, "share": share, "aggregation": aggregation}
                    yield said, label, method, seed, partial(run_poisoned, method, seed, attack, share, aggregation)


def run_poisoned(
    method: FedAvg,
    seed: int,
    attack: str,
    share: float,
    aggregation: str,
) -> list[Row]:
    """One row: how the honest clients fare (`end_of`)."""
    federation = digits(seed)
    attackers = draw_attackers(federation, share, seed)
    poisoned, faults = ATTACKS[attack](federation, attackers)
    net = net_for(federation.data.in_shape, 10)
    states = rounds(method, net, poisoned, rounds=ROUNDS, seed=seed, faults=faults, defences=AGGREGATIONS[aggregation])
    return [end_of(honest_accuracy(state.records[-1], attackers) for state in states)]


def end_of(accuracies: Iterator[float]) -> Row:
    """personal: the mean over the last five rounds; NaN where the run diverged. diverged: the round in which a loss or
    a weight was no longer finite, which ends a run; 0 where none was."""
    rounds_done = []
    try:
        for accuracy in accuracies:
            rounds_done.append(accuracy)
    except FloatingPointError:
        return {"personal": float("nan"), "diverged": len(rounds_done) + 1}
    return {"personal": float(np.mean(rounds_done[-SUMMARY_ROUNDS:])), "diverged": 0}


# --- Backdoor ---


def backdoor() -> Iterator[Job]:
    """Two of twenty clients stamp half of their images, label them 0 and send three times their update; what the server
    and the honest clients then take for a 0. Without attackers, and with each defence."""
    yield from of_backdoor("none", "none", 0.0)
    for name in ("none", "clipping", "similarity", "median", "multi-Krum"):
        yield from of_backdoor("scaled by 3", name, BACKDOOR_SHARE)


def of_backdoor(attack: str, defence: str, share: float) -> Iterator[Job]:
    """The jobs of one defence."""
    for label, method, seed in of_methods(FOUR):
        said = {"attack": attack, "share": share, "defence": defence}
        yield said, label, method, seed, partial(run_backdoor, method, seed, share, defence)


def run_backdoor(method: FedAvg, seed: int, share: float, defence: str) -> list[Row]:
    """One row, after the last round (`BackdoorSuccess`)."""
    federation = digits(seed)
    attackers = draw_attackers(federation, share, seed)
    poisoned = plant_backdoor(federation, attackers, TARGET, seed=seed)
    defences = {"none": [], "clipping": [ClipNorm(CLIP)], **AGGREGATIONS}[defence]
    net = net_for(federation.data.in_shape, 10)
    how = {"faults": [ScaledUpdate(attackers, scale=3.0)], "defences": defences, "eval_every": ROUNDS}
    *_, state = rounds(method, net, poisoned, rounds=ROUNDS, seed=seed, **how)
    honest = [k for k in range(len(federation)) if k not in attackers]
    return [backdoor_success(method, net, state, poisoned, TARGET, honest, seed=seed)._asdict()]


# --- Privacy ---


def membership() -> Iterator[Job]:
    """Which images a client trained on, asked of its own upload after the last round; all clients' answers together.
    The control asks the same of two random halves of held-out images."""
    names = {"FedAvg": "fedavg", "FedPAC": "fedpac", "FedeCouple": "fedecouple"}
    for images, epochs in ((None, 5), (20, 20)):
        for label, method, seed in of_methods(names, epochs=epochs):
            said = {"images": images or "all", "epochs": epochs}
            yield said, label, method, seed, partial(run_membership, method, seed, images)


def run_membership(method: FedAvg, seed: int, per_client: int | None) -> list[Row]:
    """A row for each attack: auc and tpr (at 1 % false alarms), error (of the auc of a guess), members (images)."""
    federation = split(load("digits"), CLIENTS, seed=seed, alpha=0.3, per_client=per_client)
    net = net_for(federation.data.in_shape, 10)
    *_, state = rounds(method, net, federation, rounds=ROUNDS, seed=seed, eval_every=ROUNDS)
    uploads = [method.upload(client) for client in state.clients]
    rng = torch.Generator().manual_seed(seed)
    asked: dict[str, list[mia.Membership]] = {}
    for k, upload in enumerate(uploads):
        train, test = federation.train[k], federation.test[k]
        shuffled = test[torch.randperm(len(test), generator=rng)]
        half = len(shuffled) // 2
        members, others = with_labels(federation, train), with_labels(federation, test)
        first, second = with_labels(federation, shuffled[:half]), with_labels(federation, shuffled[half:])
        strangers = uploads[:k] + uploads[k + 1 :]
        for attack, references in (("loss", []), ("likelihood ratio", strangers)):
            asked.setdefault(attack, []).append(mia.attack(net, upload, members, others, references))
            asked.setdefault(f"{attack}, control", []).append(mia.attack(net, upload, first, second, references))
    return [{"attack": attack, **together(of_clients)} for attack, of_clients in asked.items()]


def together(of_clients: Sequence[mia.Membership]) -> Row:
    """What all clients' scores say together."""
    members = torch.cat([of.members for of in of_clients])
    others = torch.cat([of.others for of in of_clients])
    return {
        "auc": mia.auc(members, others),
        "error": mia.chance_error(len(members), len(others)),
        "tpr": mia.tpr_at(members, others),
        "members": len(members),
    }


def with_labels(federation: Federation, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and labels at `index`."""
    return federation.data.images(index), federation.data.y[index]


def noise() -> Iterator[Job]:
    """Clipped updates with Gaussian noise: what it costs, and the privacy that dp-accounting says it buys."""
    names = {"FedAvg": "fedavg", "FedeCouple": "fedecouple"}
    for clip, multiplier in NOISES:
        for label, method, seed in of_methods(names):
            said = {"clip": str(clip), "multiplier": multiplier}
            yield said, label, method, seed, partial(run_noise, method, seed, clip, multiplier)


def run_noise(method: FedAvg, seed: int, clip: float, multiplier: float) -> list[Row]:
    """One row: how all clients fare (`end_of`), and the privacy spent. epsilon_server, epsilon_others: after the last
    round, at delta 0.001, towards whoever sees uploads, and whoever sees the server's model only."""
    federation = digits(seed)
    net = net_for(federation.data.in_shape, 10)
    defences = [GaussianNoise(clip, multiplier)] if np.isfinite(clip) else []
    states = rounds(method, net, federation, rounds=ROUNDS, seed=seed, defences=defences)
    row = {
        **end_of(state.records[-1]["personal"] for state in states),
        "epsilon_server": privacy_spent_to_server(multiplier, ROUNDS, DELTA),
        "epsilon_others": privacy_spent_to_others(multiplier, CLIENTS, CLIENTS, ROUNDS, DELTA, secret_cohorts=False),
    }
    return [row]


# --- Images and labels from weights ---


def inversion() -> Iterator[Job]:
    """Images made from a client's real upload of its first round, one or more images in one batch, by `invert` with 300
    iterations and two restarts; FedRep's classifier stays, so the attacker is given the labels."""
    for images, epochs in ((1, 1), (1, 5), (4, 1), (8, 1)):
        for label, method, seed in of_methods(FOUR, epochs=epochs):
            said = {"images": images, "epochs": epochs}
            yield said, label, method, seed, partial(run_inversion, method, seed, images)


def run_inversion(method: FedAvg, seed: int, images: int) -> list[Row]:
    """A row for each of three draws of images."""
    return [invert_draw(method, seed, images, draw) for draw in range(3)]


def invert_draw(method: FedAvg, seed: int, images: int, draw: int) -> Row:
    """psnr (dB) and ssim, means over the images; labels: 1 where those read from the classifier are right, 0 where not,
    empty where it does not travel."""
    data = load("digits")
    net = net_for(data.in_shape, 10)
    pixel_range = PixelRange.of(data)
    rng = np.random.default_rng([seed, draw, 16])  # not the draws that the attack was tuned on
    index = torch.from_numpy(rng.choice(len(data.y), images, replace=False))
    x, y = data.images(index), data.y[index]
    seen = first_round(method, net, x, y, seed=seed)
    how = {"loss": "layers"} if images == 1 else {"loss": "cosine", "input_match": 0.0}
    inverted = invert(seen, y, pixel_range, seed=seed, **how)
    found = likeness(inverted.pixels, pixel_range.pixels(x))
    row = {"draw": draw, "psnr": float(found.psnr.mean()), "ssim": float(found.ssim.mean())}
    return row | {"labels": labels_are_read(seen, y)}


def labels_are_read(seen: Observation, y: torch.Tensor) -> float | None:
    """1 where the labels are those that the classifier's update says, 0 where not; None where it did not travel."""
    if not any(name.startswith(CLASSIFIER) for name in seen.upload):
        return None
    return float(labels_from(seen, len(y)).tolist() == sorted(y.tolist()))


def class_mix() -> Iterator[Job]:
    """How far the class mix that a server reads from a client's upload of round 2 is from the truth, in total
    variation, mean over clients; a guess that all classes are alike in a row of its own."""
    names = {"FedAvg": "fedavg", "FedPAC": "fedpac", "FedeCouple": "fedecouple"}
    for epochs in (1, 5):
        for label, method, seed in of_methods(names, epochs=epochs):
            yield {"epochs": epochs}, label, method, seed, partial(run_class_mix, method, seed)


def run_class_mix(method: FedAvg, seed: int) -> list[Row]:
    """One row: distance of what is read (FedPAC's counts, else `class_mix_from` the classifier), and of the guess."""
    federation = split(load("digits"), 10, seed=seed, alpha=0.3, per_client=60)
    net = net_for(federation.data.in_shape, 10)
    distances = []
    of_guess = []
    for k, counts in enumerate(torch.from_numpy(federation.label_counts())):
        seen = in_round(look(method, net, federation, client=k), 2)
        if COUNTS in seen.upload:
            said = class_mix_of(seen.upload)
            mix = said / said.sum()
        else:
            mix = class_mix_from(seen, len(federation.train[k]))
        truth = counts / counts.sum()
        distances.append(float((mix - truth).abs().sum() / 2))
        of_guess.append(float((truth - 0.1).abs().sum() / 2))
    return [{"distance": float(np.mean(distances)), "of_a_guess": float(np.mean(of_guess))}]


# --- Running ---


PARTS: dict[str, Callable[[], Iterator[Job]]] = {
    "poisoning": poisoning,
    "backdoor": backdoor,
    "membership": membership,
    "noise": noise,
    "inversion": inversion,
    "class_mix": class_mix,
}


# Which federations are run, where they are not those of the others.
OTHER_RUNS: dict[str, Row] = {
    "inversion": {"data": "digits, drawn at random", "clients": 1, "rounds": 1},
    "class_mix": {"clients": 10, "rounds": 2},
}


def settings_of(jobs: Sequence[Job]) -> Row:
    """Each method's hyper-parameters, by label, without those that a row says for itself."""
    settings = {}
    for said, label, method, _, _ in jobs:
        settings[label] = {name: value for name, value in asdict(method).items() if name not in said}
    return settings


def publish(part: str) -> None:
    """Run a part, or read it back, and write its table and what it depends on."""
    TABLES.mkdir(parents=True, exist_ok=True)
    jobs = list(PARTS[part]())
    rows_of(part, jobs, OUR_RUNS).round(6).to_csv(TABLES / f"{part}.csv", index=False)
    about = {
        "command": f"python benchmarks/security.py {part}",
        "what": " ".join(str(PARTS[part].__doc__).split()),
        "data": "digits, Dirichlet 0.3",
        "clients": CLIENTS,
        "rounds": ROUNDS,
        "seeds": list(SEEDS),
        "methods": settings_of(jobs),
        "versions": versions(),
        "hardware": f"{os.cpu_count()} cores ({platform.machine()}), no GPU",
    }
    write_about(TABLES / f"{part}.json", about | OTHER_RUNS.get(part, {}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=PARTS)
    for wanted in parser.parse_args().parts:
        publish(wanted)
