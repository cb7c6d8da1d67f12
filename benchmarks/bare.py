"""The yardstick: one federated round as anybody would write it in plain PyTorch, one client after the other.

The same nets, batches and steps as the engine; images are resident floats, so nothing is lost to loading. A frozen
extractor is run at every step, as a plain loop does.
"""

import copy

import torch
import torch.nn.functional as F


def load(module, tensors, prefix):
    """Copy named tensors into a module."""
    module.load_state_dict({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})


def train(parameters, loss_of, batches, method):
    """SGD on `parameters`; one step for each batch and loss."""
    optimizer = torch.optim.SGD(parameters, method.lr, method.momentum, weight_decay=method.weight_decay)
    for index in batches:
        for loss in loss_of:
            optimizer.zero_grad()
            loss(index).backward()
            optimizer.step()


def client_round(name, method, net, weights, data):
    """One client's FedAvg, FedRep or FedeCouple round from `weights`; returns its new state dictionaries."""
    extractor, classifier = (
        copy.deepcopy(net.extractor).to(data.x.device),
        copy.deepcopy(net.classifier).to(data.x.device),
    )
    load(extractor, weights, "extractor.")
    load(classifier, weights, "classifier.")
    x, y = data.x, data.y

    def plain(i):
        return F.cross_entropy(classifier(extractor(x[i])), y[i])

    if name == "fedavg":
        both = [*extractor.parameters(), *classifier.parameters()]
        train(both, [plain], data.batches(method.epochs), method)
        return extractor.state_dict(), classifier.state_dict()
    personal, local = plain, [plain]
    if name == "fedecouple":
        teacher = copy.deepcopy(classifier).requires_grad_(False)
        with torch.no_grad():
            z = extractor(x)
            anchors = torch.stack(
                [z[y == c].mean(0) if (y == c).any() else z.new_zeros(z.shape[1]) for c in range(net.classes)]
            )

        def personal(i):
            with torch.no_grad():
                z = extractor(x[i])
                t = teacher(z)
                w = t.softmax(1).gather(1, y[i][:, None])[:, 0]
            s = classifier(z)
            kl = F.kl_div(s.log_softmax(1), t.softmax(1), reduction="none").sum(1)
            return F.cross_entropy(s, y[i]) + method.lam * (w * kl).mean()

        def pull(head):
            def loss(i):
                z = extractor(x[i])
                return F.cross_entropy(head(z), y[i]) + method.mu * (z - anchors[y[i]]).square().mean()

            return loss

        def joint(i):
            z = extractor(x[i])
            return (
                sum(F.cross_entropy(g(z), y[i]) for g in (teacher, classifier))
                + method.mu * (z - anchors[y[i]]).square().mean()
            )

        local = [joint] if method.coupling == "joint" else [pull(teacher), pull(classifier)]
    extractor.requires_grad_(False)
    train(classifier.parameters(), [personal], data.batches(method.classifier_epochs), method)
    extractor.requires_grad_(True)
    classifier.requires_grad_(False)
    train(extractor.parameters(), local, data.batches(method.epochs), method)
    return extractor.state_dict(), classifier.state_dict()
