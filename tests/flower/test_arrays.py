"""Tensors are Flower's arrays and back, to the bit; what a stranger sends is looked at."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("flwr", reason="no Flower here: pip install -e .[flower]")

from flwr.app import Array, ArrayRecord

from fedecouple_lite.flower.arrays import DTYPES, as_arrays, as_tensors
from fedecouple_lite.flower.messages import Order, order_content, order_from

SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)


@settings(max_examples=60, deadline=None)
@given(shape=SHAPES, dtype=st.sampled_from(DTYPES), seed=st.integers(0, 9))
def test_a_tensor_comes_back_to_the_bit(shape, dtype, seed):
    numbers = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 50
    tensors = {"a.b": numbers.to(dtype), "": torch.tensor(torch.nan), "last": numbers.T if len(shape) == 2 else numbers}
    back = as_tensors(as_arrays(tensors))
    assert list(back) == list(tensors)
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype and back[name].shape == tensor.shape
        assert back[name].is_contiguous()
        ours, theirs = tensor.contiguous().numpy().tobytes(), back[name].numpy().tobytes()
        assert ours == theirs  # NaN and -0, too


def test_a_tensor_on_its_own_memory():
    tensor = torch.arange(4.0)
    record = as_arrays({"a": tensor})
    one, other = as_tensors(record)["a"], as_tensors(record)["a"]
    tensor += 1
    one += 1
    assert other.tolist() == [0, 1, 2, 3]


def test_a_dtype_that_numpy_lacks_is_refused():
    with pytest.raises(ValueError, match=r"tensors: w is in torch.bfloat16"):
        as_arrays({"w": torch.zeros(2, dtype=torch.bfloat16)})


class Trap:
    def __reduce__(self):
        return (exec, ("raise SystemExit('it was unpickled')",))


def pickled() -> bytes:
    """What numpy.save would write of an array of Python objects: a header and a pickle."""
    header = np.lib.format.magic(1, 0) + b"\x46\x00" + b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    return header.ljust(10 + 0x46 - 1) + b"\n" + pickle.dumps([Trap()])


@pytest.mark.parametrize(
    ("array", "why"),
    [
        (Array("object", (1,), "numpy.ndarray", pickled()), "cannot be read"),
        (Array("float32", (1,), "numpy.ndarray", pickle.dumps(Trap())), "cannot be read"),
        (Array("float32", (1,), "numpy.ndarray", b""), "cannot be read"),
        (Array("float32", (1,), "torch", b"x"), "cannot be read"),
        (Array("float32", (3,), "numpy.ndarray", Array(np.zeros(2, np.float32)).data), "says that it is"),
        (Array("float32", (2,), "numpy.ndarray", Array(np.zeros(2)).data), "says that it is"),
        (Array("complex64", (2,), "numpy.ndarray", Array(np.zeros(2, "U3")).data), "cannot be read"),
    ],
)
def test_what_is_no_array_is_refused_and_never_unpickled(array, why):
    with pytest.raises(ValueError, match=f"record: w .*{why}|record: w {why}"):
        as_tensors(ArrayRecord({"w": array}))


def test_an_order_comes_back_and_one_whose_run_leads_elsewhere_is_refused():
    order = Order("fedrep", "89abcdef01234567", 3, 2, 1, True)
    assert order_from(order_content(order, {})) == order
    for run in ("../../elsewhere", "89abcdef0123456", "89ABCDEF01234567", ""):
        with pytest.raises(ValueError, match="must be sixteen hexadecimal digits"):
            order_from(order_content(order._replace(run=run), {}))
