"""fedecouple-lite: learn, teach and try personalized federated learning."""

from .client import ClientResult, client_round
from .data import DATASETS, Dataset, from_arrays, load
from .engine import State, rounds
from .methods import METHODS, make
from .models import DecoupledNet, net_for
from .newcomers import adapt, newcomer_accuracy
from .partition import PARTITIONS, Federation, split, split_unseen, unevenness

SCHEMES = PARTITIONS  # the name before 0.2

__all__ = [
    "DATASETS",
    "METHODS",
    "PARTITIONS",
    "SCHEMES",
    "ClientResult",
    "Dataset",
    "DecoupledNet",
    "Federation",
    "State",
    "adapt",
    "client_round",
    "from_arrays",
    "load",
    "make",
    "net_for",
    "newcomer_accuracy",
    "rounds",
    "split",
    "split_unseen",
    "unevenness",
]
__version__ = "0.3.0"
