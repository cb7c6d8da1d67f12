"""Three rounds on digits, every method and backend, against tensors recorded before: a change of form keeps every bit.

`tests/data/three_rounds.json` holds, for each run, a digest of all its tensors and a few figures. On the kind of
processor and the build of PyTorch that recorded it the digests must be equal; elsewhere arithmetic may round another
way, and the figures must agree as far as rounding allows. After a change that is meant to change results:

    python tests/test_same_numbers.py
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fedecouple_lite import METHODS, Federation, load, make, net_for, rounds

RECORD = Path(__file__).parent / "data" / "three_rounds.json"
FORMS = {
    "fedecouple, joint": {"coupling": "joint"},
    "fedecouple, phases": {"coupling": "phases"},
    "fedecouple, similarity": {"aggregation": "similarity"},
    "fedecouple, constant, T = 2": {"weighting": "constant", "temperature": 2.0},
}
CASES = {name: {} for name in METHODS} | FORMS
BACKENDS = ("loop", "threads", "vmap")
DTYPES = {"float64": torch.float64, "float32": torch.float32}
# How far figures may be from the record on another processor: relative to the figure's size.
TOLERANCE = {"float64": 1e-9, "float32": 1e-3}


def machine() -> str:
    """What the last bits depend on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")
    return f"{model}; torch {torch.__version__}; {torch.backends.cpu.get_cpu_capability()}"


def by_hand() -> Federation:
    """Every sixth digit, in order of class, cut into 16 pieces, two of them for each of 8 clients; every other image
    for tests. It asks no partition of the library, so that a change there changes nothing here."""
    data = load("digits")
    pieces = np.array_split(np.argsort(data.y.numpy(), kind="stable")[::6], 16)
    clients = [torch.from_numpy(np.concatenate([pieces[i], pieces[15 - i]])) for i in range(8)]
    return Federation(data, tuple(c[::2] for c in clients), tuple(c[1::2] for c in clients))


def digest(state) -> str:
    """One hash of the server's and all clients' tensors, names and bytes."""
    result = hashlib.sha256()
    for tensors in (state.server, *state.clients):
        for name in sorted(tensors):
            result.update(name.encode())
            result.update(tensors[name].contiguous().numpy().tobytes())
    return result.hexdigest()[:20]


def figures(state) -> dict[str, float]:
    """Sizes of what the server and the clients hold, and the last record's loss and accuracy."""
    size = {"server": [state.server], "clients": state.clients}
    norms = {
        name: sum(float(t.double().square().sum()) for tensors in many for t in tensors.values()) ** 0.5
        for name, many in size.items()
    }
    return norms | {name: state.records[-1][name] for name in ("loss", "personal")}


def run(case: str, backend: str, dtype: str):
    method = make(case.split(",")[0], epochs=2, batch_size=16, **CASES[case])
    federation = by_hand().to(dtype=DTYPES[dtype])
    net = net_for((1, 8, 8), 10)
    *_, state = rounds(method, net, federation, rounds=3, seed=0, backend=backend, eval_every=3)
    return state


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES)
def test_three_rounds_give_the_recorded_tensors(case, backend, dtype):
    record = json.loads(RECORD.read_text())
    before = record["runs"][f"{case}; {backend}; {dtype}"]
    state = run(case, backend, dtype)
    if record["machine"] == machine():
        assert digest(state) == before["digest"]
    now = figures(state)
    for name, value in before["figures"].items():
        # An accuracy moves in steps of one image.
        allowed = 0.02 if name == "personal" else TOLERANCE[dtype] * max(1.0, abs(value))
        assert abs(now[name] - value) <= allowed, name


def record() -> None:
    """Write the record anew."""
    runs = {}
    for case in CASES:
        for backend in BACKENDS:
            for dtype in DTYPES:
                state = run(case, backend, dtype)
                runs[f"{case}; {backend}; {dtype}"] = {"digest": digest(state), "figures": figures(state)}
    RECORD.parent.mkdir(exist_ok=True)
    RECORD.write_text(json.dumps({"machine": machine(), "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    record()
