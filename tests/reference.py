"""Every method once more, from its paper: plain modules, `torch.optim.SGD`, one client after the other.

Nothing here comes from the library, so that a test can hold the library to numbers that it did not compute. Shared is
only what has to be agreed on: the names of tensors, which numbers key a generator of random numbers, the size of a
cohort, and the forms that the paper leaves open and that `methods/fedecouple.py` lists as our reading.
"""

import copy

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from torch import nn

FEATURES = 6
COHORT, TRAIN, PREDICT = 1, 2, 3  # what a generator is for: the second of the numbers that key it


class Model(nn.Module):
    """Images (B, 1, 8, 8) to features (B, 6), features to logits."""

    def __init__(self, classes):
        super().__init__()
        self.extractor = nn.Sequential(nn.Flatten(), nn.Linear(64, FEATURES), nn.Tanh())
        self.classifier = nn.Linear(FEATURES, classes)
        self.double()

    def forward(self, x):
        return self.classifier(self.extractor(x))


class Reference:
    """What the methods have in common. `h`: a method's hyper-parameters by name."""

    travels = ("extractor.", "classifier.")
    takes_over = ("extractor.", "classifier.")  # of what is sent, what replaces the client's own

    def __init__(self, classes, **h):
        self.classes = classes
        self.h = h

    # What is there before the first round.
    def first_client(self, weights):
        return dict(weights)

    def first_server(self, weights):
        return begin_with(weights, self.travels)

    # What travels.
    def sent(self, server, k):
        return begin_with(server, self.travels)

    def received(self, client, sent):
        return {**client, **begin_with(sent, self.takes_over)}

    def uploaded(self, client):
        return begin_with(client, self.travels)

    def combined(self, server, uploads, sizes):
        return {**server, **average(list(uploads.values()), list(sizes.values()))}

    # What a client does: its tensors after the round, the last phase's mean loss, and how many steps it took.
    def train(self, client, sent, x, y, draw):
        model = self.model(client)
        loss, steps = self.descend(model.parameters(), [lambda a, b: cross_entropy(model(a), b)], x, y, draw)
        return {**client, **tensors_of(model)}, loss, steps

    # What it predicts with. tune: a copy for the prediction only, and its steps.
    def tune(self, client, x, y, draw):
        return client, 0

    def predict(self, client, sent, x):
        return self.model(sent)(x)

    # Helpers.
    def model(self, tensors, prefix=""):
        model = Model(self.classes)
        named = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        model.load_state_dict({name: named[name].clone() for name in model.state_dict()})
        return model

    def descend(self, parameters, losses, x, y, draw, epochs=None, lr=None):
        parameters = list(parameters)
        epochs = self.h["epochs"] if epochs is None else epochs
        lr = self.h["lr"] if lr is None else lr
        optimizer = torch.optim.SGD(parameters, lr=lr, momentum=self.h["momentum"], weight_decay=self.h["weight_decay"])
        values = []
        for _ in range(epochs):
            order = draw.permutation(len(y))
            for first in range(0, len(y), self.h["batch_size"]):
                index = torch.from_numpy(order[first : first + self.h["batch_size"]])
                for loss in losses:
                    optimizer.zero_grad()
                    value = loss(x[index], y[index]).mean()
                    value.backward()
                    optimizer.step()
                    values.append(value.item())
        return float(np.mean(values)), len(values)


class Local(Reference):
    travels = takes_over = ()

    def combined(self, server, uploads, sizes):
        return {}

    def predict(self, client, sent, x):
        return self.model(client)(x)


class FedAvg(Reference):
    pass


class FedAvgFT(Reference):
    def tune(self, client, x, y, draw):
        model = self.model(client)
        z = model.extractor(x).detach()
        losses = [lambda a, b: cross_entropy(model.classifier(a), b)]
        _, steps = self.descend(
            model.classifier.parameters(), losses, z, y, draw, self.h["fine_tune_epochs"], self.h["fine_tune_lr"]
        )
        return {**client, **tensors_of(model)}, steps

    def predict(self, client, sent, x):
        return self.model(client)(x)


class FedProx(Reference):
    """Li et al. 2020, equation 2: + mu / 2 ||w - w^t||^2."""

    def train(self, client, sent, x, y, draw):
        model = self.model(client)
        anchor = self.model(sent)

        def loss(a, b):
            pairs = zip(model.parameters(), anchor.parameters(), strict=True)
            return cross_entropy(model(a), b) + self.h["mu"] / 2 * sum(((p - q.detach()) ** 2).sum() for p, q in pairs)

        value, steps = self.descend(model.parameters(), [loss], x, y, draw)
        return {**client, **tensors_of(model)}, value, steps


class Ditto(Reference):
    """Li et al. 2021, algorithm 1: the federated model as FedAvg's, then v_k with lambda / 2 ||v_k - w^t||^2."""

    def first_client(self, weights):
        return {**weights, **{f"personal.{name}": tensor for name, tensor in weights.items()}}

    def train(self, client, sent, x, y, draw):
        shared = self.model(client, "")
        _, first = self.descend(shared.parameters(), [lambda a, b: cross_entropy(shared(a), b)], x, y, draw)
        personal = self.model(client, "personal.")
        anchor = self.model(sent)

        def loss(a, b):
            pairs = zip(personal.parameters(), anchor.parameters(), strict=True)
            pull = sum(((p - q.detach()) ** 2).sum() for p, q in pairs)
            return cross_entropy(personal(a), b) + self.h["lam"] / 2 * pull

        value, second = self.descend(personal.parameters(), [loss], x, y, draw)
        own = {f"personal.{name}": tensor for name, tensor in tensors_of(personal).items()}
        return {**client, **tensors_of(shared), **own}, value, first + second

    def predict(self, client, sent, x):
        return self.model(client, "personal.")(x)


class OwnModel(Reference):
    def predict(self, client, sent, x):
        return self.model(client)(x)


class FedPer(OwnModel):
    travels = takes_over = ("extractor.",)


class LGFedAvg(OwnModel):
    travels = takes_over = ("classifier.",)


class FedRep(OwnModel):
    """Collins et al. 2021, algorithm 1: the head for tau steps, then the representation."""

    travels = takes_over = ("extractor.",)

    def train(self, client, sent, x, y, draw):
        model = self.model(client)
        z = model.extractor(x).detach()
        first = self.train_classifier(model, z, y, draw, lambda a, b: cross_entropy(model.classifier(a), b))
        whole = [lambda a, b: cross_entropy(model(a), b)]
        value, second = self.descend(model.extractor.parameters(), whole, x, y, draw)
        return {**client, **tensors_of(model)}, value, first + second

    def train_classifier(self, model, z, y, draw, loss):
        epochs, lr = self.h["classifier_epochs"], self.h["classifier_lr"]
        return self.descend(model.classifier.parameters(), [loss], z, y, draw, epochs, lr)[1]


class FedBABU(OwnModel):
    """Oh et al. 2022: the body alone is trained; head and body are fine-tuned from what is received."""

    travels = takes_over = ("extractor.",)

    def first_server(self, weights):
        return dict(weights)

    def train(self, client, sent, x, y, draw):
        model = self.model(client)
        losses = [lambda a, b: cross_entropy(model(a), b)]
        value, steps = self.descend(model.extractor.parameters(), losses, x, y, draw)
        return {**client, **tensors_of(model)}, value, steps

    def tune(self, client, x, y, draw):
        model = self.model(client)
        losses = [lambda a, b: cross_entropy(model(a), b)]
        epochs, lr = self.h["fine_tune_epochs"], self.h["fine_tune_lr"]
        _, steps = self.descend(model.parameters(), losses, x, y, draw, epochs, lr)
        return {**client, **tensors_of(model)}, steps


class FedRoD(Reference):
    """Chen and Chao 2022: the generic head by the balanced softmax; the personal head on top, with its own loss."""

    def first_client(self, weights):
        head = {f"head.{name}": tensor for name, tensor in weights.items() if name.startswith("classifier.")}
        return {**weights, **head}

    def train(self, client, sent, x, y, draw):
        model = self.model(client)
        head = self.head(client)
        prior = torch.bincount(y, minlength=self.classes).double()

        def loss(a, b):
            z = model.extractor(a)
            generic = model.classifier(z)
            balanced = -torch.log(prior[b] * torch.exp(generic[range(len(b)), b]) / (prior * torch.exp(generic)).sum(1))
            return balanced + cross_entropy(generic.detach() + head(z.detach()), b)

        value, steps = self.descend([*model.parameters(), *head.parameters()], [loss], x, y, draw)
        own = {f"head.classifier.{name}": tensor.detach() for name, tensor in head.state_dict().items()}
        return {**client, **tensors_of(model), **own, "class_counts": prior}, value, steps

    def head(self, client):
        head = nn.Linear(FEATURES, self.classes).double()
        head.load_state_dict({name: client[f"head.classifier.{name}"].clone() for name in ("weight", "bias")})
        return head

    def predict(self, client, sent, x):
        model = self.model(client)
        z = model.extractor(x)
        return model.classifier(z) + self.head(client)(z)


class FedPAC(FedRep):
    """Xu et al. 2023: equation 7 pulls features to global prototypes, equation 11 mixes the classifiers."""

    def sent(self, server, k):
        own = {name.removeprefix(f"mixed.{k}."): tensor for name, tensor in server.items()}
        mixture = {name: own[name] for name in ("classifier.weight", "classifier.bias") if name in own}
        return {**begin_with(server, ("extractor.", "prototypes.")), **mixture}

    def received(self, client, sent):
        return {**client, **sent}

    def uploaded(self, client):
        return begin_with(client, ("extractor.", "classifier.", "prototypes.", "statistics."))

    def train(self, client, sent, x, y, draw):
        model = self.model(client)
        z = model.extractor(x).detach()
        own = means_by_class(z, y, self.classes)
        share = torch.bincount(y, minlength=self.classes).double() / len(y)
        spread = 0.0  # sum over classes of p E|f|^2 - p^2 |mean|^2
        for c in range(self.classes):
            if share[c] > 0:
                spread += float(share[c] * (z[y == c] ** 2).sum(1).mean() - share[c] ** 2 * (own[c] ** 2).sum())
        first = self.train_classifier(model, z, y, draw, lambda a, b: cross_entropy(model.classifier(a), b))

        def loss(a, b):
            features = model.extractor(a)
            losses = cross_entropy(model.classifier(features), b)
            if "prototypes.means" in sent:
                known = sent["prototypes.counts"][b] > 0
                centres = torch.where(known[:, None], sent["prototypes.means"][b], own[b])
                losses = losses + self.h["lam"] * ((features - centres) ** 2).sum(1) / FEATURES
            return losses

        value, second = self.descend(model.extractor.parameters(), [loss], x, y, draw)
        after = {
            **client,
            **tensors_of(model),
            "own.means": own,
            "statistics.h": share[:, None] * own,
            "statistics.v": torch.tensor(spread / len(y), dtype=torch.float64),
            "prototypes.means": means_by_class(model.extractor(x).detach(), y, self.classes),
            "prototypes.counts": share * len(y),
        }
        return after, value, first + second

    def combined(self, server, uploads, sizes):
        new = {**server, **average([begin_with(u, ("extractor.",)) for u in uploads.values()], list(sizes.values()))}
        counts = sum(upload["prototypes.counts"] for upload in uploads.values())
        sums = sum(u["prototypes.counts"][:, None] * u["prototypes.means"] for u in uploads.values())
        new["prototypes.counts"] = counts
        new["prototypes.means"] = sums / counts.clamp(min=1)[:, None]
        for k, mine in uploads.items():
            weights = self.mixture(mine, list(uploads.values()))
            mixed = average([begin_with(upload, ("classifier.",)) for upload in uploads.values()], weights)
            new |= {f"mixed.{k}.{name}": tensor for name, tensor in mixed.items()}
        return new

    def mixture(self, mine, uploads):
        """Weights on the simplex that minimise sum_j a_j^2 v_j + |sum_j a_j (h_mine - h_j)|^2."""
        away = np.array([(mine["statistics.h"] - upload["statistics.h"]).flatten().numpy() for upload in uploads])
        variance = np.array([float(upload["statistics.v"]) for upload in uploads])

        def risk(a):
            return variance @ a**2 + ((a @ away) ** 2).sum()

        def slope(a):
            return 2 * variance * a + 2 * away @ (a @ away)

        on_simplex = {"type": "eq", "fun": lambda a: a.sum() - 1, "jac": lambda a: np.ones_like(a)}
        even = np.full(len(uploads), 1 / len(uploads))
        bounds = [(0, 1)] * len(uploads)
        options = {"ftol": 1e-16, "maxiter": 1000}
        best = minimize(risk, even, jac=slope, bounds=bounds, constraints=on_simplex, method="SLSQP", options=options).x
        return np.where(best < 1e-3, 0, best).tolist()


class FedeCouple(OwnModel):
    """The paper's parts in our reading: anchors, dynamic distillation, the extractor against both classifiers."""

    takes_over = ("extractor.",)  # the classifier that is sent is held beside the client's own

    def train(self, client, sent, x, y, draw):
        h = self.h
        model = self.model(client)
        teacher = nn.Linear(FEATURES, self.classes).double()
        teacher.load_state_dict({name: sent[f"classifier.{name}"].clone() for name in ("weight", "bias")})
        teacher.requires_grad_(False)
        z = model.extractor(x).detach()
        anchors = means_by_class(z, y, self.classes)

        def personal(features, b):
            student_logits, teacher_logits = model.classifier(features), teacher(features)
            teacher_says = F.softmax(teacher_logits / h["temperature"], 1)
            student_says = F.log_softmax(student_logits / h["temperature"], 1)
            kl = F.kl_div(student_says, teacher_says, reduction="none").sum(1)  # KL(teacher || student)
            trust = F.softmax(teacher_logits, 1)[range(len(b)), b] if h["weighting"] == "dynamic" else 1.0
            return cross_entropy(student_logits, b) + h["lam"] * trust * h["temperature"] ** 2 * kl

        def from_images(of_own, of_global):
            def loss(a, b):
                features = model.extractor(a)
                to_anchor = ((features - anchors[b]) ** 2).sum(1) / FEATURES
                own = cross_entropy(model.classifier(features), b)
                of_server = cross_entropy(teacher(features), b)
                return of_own * own + of_global * of_server + h["mu"] * to_anchor

            return loss

        steps = self.train_personal(model, z, y, draw, personal)
        global_pull = from_images(0.0, h["global_loss"])
        local_pull = from_images(1.0, 0.0)
        if h["global_loss"] == 0:
            plan = [[local_pull]]
        elif h["coupling"] == "joint":
            plan = [[from_images(1.0, h["global_loss"])]]
        elif h["coupling"] == "phases":
            plan = [[global_pull], [local_pull]]
        else:
            plan = [[global_pull, local_pull]]
        model.classifier.requires_grad_(False)
        for losses in plan:
            value, more = self.descend(model.extractor.parameters(), losses, x, y, draw)
            steps += more
        counts = torch.bincount(y, minlength=self.classes).double()
        return {**client, **tensors_of(model), "anchors.means": anchors, "anchors.counts": counts}, value, steps

    def train_personal(self, model, z, y, draw, loss):
        epochs, lr = self.h["classifier_epochs"], self.h["classifier_lr"]
        return self.descend(model.classifier.parameters(), [loss], z, y, draw, epochs, lr)[1]

    def combined(self, server, uploads, sizes):
        weights = list(sizes.values())
        if self.h["aggregation"] == "similarity":
            weights = self.similarities(server, list(uploads.values()))
        return {**server, **average(list(uploads.values()), weights)}

    def similarities(self, server, uploads):
        names = [name for name in server if name.startswith("extractor.")]
        moves = [torch.cat([(upload[n] - server[n]).flatten() for n in names]).numpy() for upload in uploads]
        weights = []
        for i, mine in enumerate(moves):
            others = [move for j, move in enumerate(moves) if j != i]
            cosines = [mine @ other / np.linalg.norm(mine) / np.linalg.norm(other) for other in others]
            weights.append(max(0.0, float(np.mean(cosines))) if cosines else 0.0)
        return weights if sum(weights) > 0 else [1.0] * len(weights)


REFERENCES = {
    "local": Local,
    "fedavg": FedAvg,
    "fedavg_ft": FedAvgFT,
    "fedprox": FedProx,
    "ditto": Ditto,
    "fedper": FedPer,
    "lg_fedavg": LGFedAvg,
    "fedrep": FedRep,
    "fedbabu": FedBABU,
    "fedrod": FedRoD,
    "fedpac": FedPAC,
    "fedecouple": FedeCouple,
}


def simulate(method, clients, weights, seed, rounds, participation):
    """The server, all clients' tensors, and a record for each round. clients: (x, y, x of tests, y of tests) each."""
    server = method.first_server(weights)
    kept = [method.first_client(weights) for _ in clients]
    joined = set()
    records = []
    for t in range(1, rounds + 1):
        size = max(1, round(participation * len(clients)))
        cohort = sorted(np.random.default_rng([seed, COHORT, t]).permutation(len(clients))[:size].tolist())
        uploads, losses, steps = {}, [], 0
        for k in cohort:
            x, y, *_ = clients[k]
            sent = method.sent(server, k)
            if k not in joined:
                kept[k] = method.first_client(model_of_newcomer(weights, sent))
            draw = np.random.default_rng([seed, TRAIN, t, k])
            kept[k], loss, taken = method.train(method.received(kept[k], sent), sent, x, y, draw)
            uploads[k] = method.uploaded(kept[k])
            losses.append(loss)
            steps += taken
        server = method.combined(server, uploads, {k: len(clients[k][1]) for k in cohort})
        joined |= set(cohort)
        record = {
            "round": t,
            "loss": np.mean(losses),
            "steps": steps,
            "upload_bytes": int(np.mean([size_of(upload) for upload in uploads.values()])),
            "download_bytes": int(np.mean([size_of(method.sent(server, k)) for k in cohort])),
        }
        records.append(record | judge(method, clients, weights, server, kept, joined, seed, t))
    return server, kept, records


def judge(method, clients, weights, server, kept, joined, seed, t):
    """The accuracies after round t."""
    of_trained, of_received, right_by_server, images, steps = [], [], 0, 0, 0
    for k, (x, y, x_test, y_test) in enumerate(clients):
        sent = method.sent(server, k)
        own = kept[k] if k in joined else method.first_client(model_of_newcomer(weights, sent))
        received = method.received(own, sent)
        tuned, taken = method.tune(received, x, y, np.random.default_rng([seed, PREDICT, t, k]))
        steps += taken
        trained = own if k in joined else received
        if taken:
            trained = received = tuned
        of_trained.append(accuracy(method.predict(trained, sent, x_test), y_test))
        of_received.append(accuracy(method.predict(received, sent, x_test), y_test))
        if {"extractor.1.weight", "classifier.weight"} <= server.keys():
            right_by_server += int((method.model(server)(x_test).argmax(1) == y_test).sum())
        images += len(y_test)
    has_model = {"extractor.1.weight", "classifier.weight"} <= server.keys()
    return {
        "personal": np.mean(of_trained),
        "percentile10": np.percentile(of_trained, 10),
        "personal_received": np.mean(of_received),
        "global": right_by_server / images if has_model else float("nan"),
        "newcomers": len(clients) - len(joined),
        "predict_steps": steps,
        "accuracies": of_trained,
    }


def model_of_newcomer(weights, sent):
    """The initial model, with those parts in their place that the server sends."""
    return {name: sent.get(name, tensor) for name, tensor in weights.items()}


def begin_with(tensors, prefixes):
    return {name: tensor for name, tensor in tensors.items() if any(name.startswith(p) for p in prefixes)}


def average(many, weights):
    total = sum(weights)
    return {name: sum(w / total * tensors[name] for w, tensors in zip(weights, many, strict=True)) for name in many[0]}


def tensors_of(model):
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def cross_entropy(logits, y):
    return torch.logsumexp(logits, 1) - logits[range(len(y)), y]


def means_by_class(z, y, classes):
    means = torch.zeros(classes, z.shape[1], dtype=z.dtype)
    for c in y.unique().tolist():
        means[c] = z[y == c].mean(0)
    return means


def accuracy(logits, y):
    return float((logits.argmax(1) == y).double().mean())


def size_of(tensors):
    return sum(tensor.numel() * 8 for tensor in tensors.values())  # float64


def scaled(weights, factor):
    """Weights that make logits large: every term of a loss counts, and students are unlike their teacher."""
    return {name: factor * copy.deepcopy(tensor) for name, tensor in weights.items()}
