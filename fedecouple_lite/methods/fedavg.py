"""FedAvg: everyone trains the same model, the server averages it. The base that every other method changes.

McMahan, Moore, Ramage, Hampson, Aguera y Arcas: Communication-Efficient Learning of Deep Networks from Decentralized
Data. AISTATS 2017.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..hyper import check_hypers, hyper
from ..losses import cross_entropy
from ..models import DecoupledNet
from ..phases import Phases, Train
from ..tensors import CLASSIFIER, EXTRACTOR, Tensors, pick, weighted_mean


@dataclass(frozen=True)
class FedAvg:
    """One round: receive w, train it for `epochs` local epochs, upload it; the server takes the size-weighted mean.

    The hooks below are all that a method is; a subclass overrides those in which it differs. None changes an argument.
    In the order in which a round calls them: send, receive, phases (with their losses), upload, aggregate; then, to
    predict, personalise and predict. init and init_server are called once, before the first round.
    """

    lr: float = hyper(0.1, "step size of local SGD; 0 trains nothing", tries=(0.02, 0.05, 0.1, 0.2))
    epochs: int = hyper(5, "local epochs a round, E; 0 trains nothing")
    batch_size: int = hyper(32, "images a step; a client's last batch may be smaller", low=1)
    momentum: float = hyper(0.5, "momentum of local SGD, started anew in every phase", high=1)
    weight_decay: float = hyper(5e-4, "pull of every trained weight to zero")

    # What the names that travel begin with; no other tensor ever leaves.
    shared: ClassVar[tuple[str, ...]] = (EXTRACTOR, CLASSIFIER)

    def __post_init__(self) -> None:
        check_hypers(self)

    def init(self, start: Tensors) -> Tensors:
        """One client's tensors before its first round, from a whole model: the weights that all clients start with or,
        for one that joins later, what the server then sends in their place."""
        return start

    def join(self, client: Tensors, download: Tensors) -> Tensors:
        """`client`, which has never taken part, as it would start now: its model's parts that the server sends are the
        server's, the others its own initial ones."""
        model = {name: tensor for name, tensor in client.items() if name.startswith((EXTRACTOR, CLASSIFIER))}
        sent = {name: tensor for name, tensor in download.items() if name in model}
        return self.init({**model, **sent})

    def init_server(self, start: Tensors) -> Tensors:
        """The server's tensors before the first round."""
        return pick(start, *self.shared)

    def send(self, server: Tensors, client_id: int) -> Tensors:
        """What the server sends to this client: the download."""
        return pick(server, *self.shared)

    def receive(self, client: Tensors, download: Tensors) -> Tensors:
        """The client's tensors as its round begins."""
        return {**client, **download}

    def phases(self) -> Phases:
        """What the client then does, in order."""
        return (Train((EXTRACTOR, CLASSIFIER), (self.loss,), self.epochs),)

    def loss(self, net: DecoupledNet, client: Tensors, download: Tensors, x: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy of the client's model on images x: one loss for each image, (B,)."""
        return cross_entropy(net.logits(client, x), y)

    def classifier_loss(self, net: DecoupledNet, client: Tensors, download: Tensors, z: Tensor, y: Tensor) -> Tensor:
        """The same from features z (B, d), for methods that train the classifier on a frozen extractor, (B,)."""
        return cross_entropy(net.classify(client, z), y)

    def upload(self, client: Tensors) -> Tensors:
        """What the client sends back."""
        return pick(client, *self.shared)

    def aggregate(self, server: Tensors, uploads: Mapping[int, Tensors], sizes: Mapping[int, float]) -> Tensors:
        """The server's next tensors from the cohort's uploads and training-set sizes, both by client number."""
        weights = [sizes[k] for k in uploads]
        return {**server, **weighted_mean(list(uploads.values()), weights)}

    def personalise(self) -> Phases:
        """Phases run only to predict, on a copy of what the client receives; what they change is thrown away."""
        return ()

    def predict(self, net: DecoupledNet, client: Tensors, download: Tensors, x: Tensor) -> Tensor:
        """Logits (B, C) of the client's personal prediction. `download` is what the server would send now."""
        return net.logits(download, x)


def own_model(self: FedAvg, net: DecoupledNet, client: Tensors, download: Tensors, x: Tensor) -> Tensor:
    """The `predict` of most personal methods: logits (B, C) of the client's model after its local training."""
    return net.logits(client, x)


@dataclass(frozen=True)
class FedAvgFT(FedAvg):
    """FedAvg + fine-tuning: trains as FedAvg; predicts with the received model after `fine_tune_epochs` epochs on the
    classifier. The rival to beat: the same travels, only the prediction is personal."""

    fine_tune_epochs: int = hyper(5, "epochs on a copy of the classifier before predicting", tries=(1, 5, 10))
    fine_tune_lr: float | None = hyper(None, "step size of the fine-tuning; none: as lr", tries=(None, 0.01, 0.03))

    predict = own_model

    def personalise(self) -> Phases:
        tuning = Train(
            (CLASSIFIER,), (self.classifier_loss,), self.fine_tune_epochs, on_features=True, lr=self.fine_tune_lr
        )
        return (tuning,)
