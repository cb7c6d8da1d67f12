"""fedecouple-lite: learn, teach and try personalized federated learning."""

from .data import DATASETS, Dataset, from_arrays, load
from .engine import State, client_round, rounds
from .methods import METHODS, make
from .models import DecoupledNet, net_for
from .partition import SCHEMES, Federation, split, unevenness

__all__ = ["DATASETS", "METHODS", "SCHEMES", "Dataset", "DecoupledNet", "Federation", "State"]
__all__ += ["client_round", "from_arrays", "load", "make", "net_for", "rounds", "split", "unevenness"]
__version__ = "0.1.0"
