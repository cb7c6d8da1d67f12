"""Digests of code: whatever changes what a method computes changes its digest, and nothing else does."""

import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fedecouple_lite import METHODS, load, split
from fedecouple_lite.methods import FedAvg
from fedecouple_lite.studies import fingerprints
from fedecouple_lite.studies.fingerprints import LIBRARY, code_digest

CELL = '''
from dataclasses import dataclass, field
from functools import lru_cache, partial, wraps
import numpy as np
import torch
import torch.nn.functional as F
from fedecouple_lite.methods import FedAvg, FedRep

SCALE = 1.5
TABLE = {"one": [1, 2], "two": {"a", "b"}}
CLASS_WEIGHTS = torch.tensor([1.0, 2.0, 3.0])
GRID = np.arange(4)
HALF = torch.float16
UNUSED = 7

def inner(losses):
    return losses * SCALE

def helper(losses, power=2, *, more=29):
    return inner(losses) ** power + more

def of_weight(weight):
    def scaled(self, losses):
        return weight * losses
    return scaled

def scaled_by(factor):
    def decorate(function):
        @wraps(function)
        def wrapped(*args):
            return factor * function(*args)
        return wrapped
    return decorate

@lru_cache
def remembered(n):
    return n + 11

class Config:
    margin = 0.25
    def __init__(self, rate):
        self.rate = rate
    def bend(self, losses):
        return losses + self.rate

CONFIG = Config(0.125)
LIST = [0, helper]
LIST.append(LIST)

class Mixin:
    def extra(self, losses):
        return losses + 31

@dataclass(frozen=True)
class Base(FedRep):
    shared = ("extractor.",)
    def twice(self, losses):
        return 2 * losses

@dataclass(frozen=True)
class Own(Base, Mixin):
    """What it is for."""
    slowness: int = 2
    factor = 5
    enclosed = of_weight(0.75)
    power = partial(helper, power=3)

    @property
    def half(self):
        return 0.5

    @staticmethod
    def fixed(losses):
        return losses - 17

    @scaled_by(13)
    def decorated(self, losses):
        return losses

    def loss(self, net, client, download, x, y):
        """One loss for each image."""
        losses = F.cross_entropy(net.logits(client, x), y, reduction="none")
        numbers = [SCALE_INSIDE * n for n in range(3)]
        try:
            losses = helper(losses, power=1 if self.half in {0.5, 19} else 2)
        except ValueError:
            pass
        return self.enclosed(CONFIG.bend(losses)) + CLASS_WEIGHTS[y] + TABLE["one"][0] + GRID[0] + remembered(1)

SCALE_INSIDE = 23

def later(self):
    return HALF, LIST

Own.later = later
'''

EDITS = {
    "a hook": ('reduction="none")', 'reduction="none") + 1'),
    "a hook's constant": ("losses + self.rate", "losses - self.rate"),
    "a helper": ("inner(losses) ** power", "inner(losses) ** (power + 1)"),
    "a helper's default": ("power=2", "power=4"),
    "a keyword's default": ("more=29", "more=30"),
    "a helper's helper": ("losses * SCALE", "losses / SCALE"),
    "a number": ("SCALE = 1.5", "SCALE = 2.5"),
    "a number inside a comprehension": ("SCALE_INSIDE = 23", "SCALE_INSIDE = 24"),
    "a list in a dictionary": ('"one": [1, 2]', '"one": [2, 1]'),
    "a set": ('{"a", "b"}', '{"a", "c"}'),
    "a tensor": ("2.0, 3.0", "3.0, 2.0"),
    "an array": ("np.arange(4)", "np.arange(4) + 1"),
    "an array's kind": ("np.arange(4)", "np.arange(4, dtype=float)"),
    "a kind of number": ("torch.float16", "torch.float32"),
    "an enclosed value": ("of_weight(0.75)", "of_weight(0.5)"),
    "an enclosing function": ("return weight * losses", "return losses / weight"),
    "a decorator's argument": ("@scaled_by(13)", "@scaled_by(14)"),
    "a decorator": ("factor * function", "factor + function"),
    "a decorated function": ("return losses\n\n    def loss", "return -losses\n\n    def loss"),
    "a remembered function": ("n + 11", "n + 12"),
    "another class": ("margin = 0.25", "margin = 0.5"),
    "another class's function": ("losses + self.rate", "losses * self.rate"),
    "an object": ("Config(0.125)", "Config(0.25)"),
    "a list that holds itself": ("[0, helper]", "[1, helper]"),
    "a base": ("2 * losses", "3 * losses"),
    "a base's attribute": ('("extractor.",)', '("classifier.",)'),
    "which base": ("class Base(FedRep)", "class Base(FedAvg)"),
    "a base behind the library's": ("losses + 31", "losses + 32"),
    "an attribute": ("factor = 5", "factor = 6"),
    "a partial function": ("partial(helper, power=3)", "partial(helper, power=5)"),
    "a property": ("return 0.5", "return 0.25"),
    "a static function": ("losses - 17", "losses - 18"),
    "a number in a set of constants": ("{0.5, 19}", "{0.5, 20}"),
    "what is caught": ("except ValueError", "except TypeError"),
    "a hook put on later": ("return HALF, LIST", "return LIST, HALF"),
}
NO_EDITS = {
    "nothing": ("", ""),
    "a comment": ("SCALE = 1.5", "SCALE = 1.5  # measured"),
    "an empty line": ("def helper", "\n\ndef helper"),
    "a docstring": ("One loss for each image.", "A loss for each image."),
    "a class's docstring": ("What it is for.", "Slow."),
    "a number that is not used": ("UNUSED = 7", "UNUSED = 8"),
    "a default that every digest has as a value": ("slowness: int = 2", "slowness: int = 3"),
}


def run_cell(source, name="__main__"):
    """The class that the cell defines, in a module without a file, as in a notebook."""
    module = {"__name__": name} if name else {}
    exec(compile(source, "<ipython-input-3>", "exec"), module)
    return module["Own"]


def edited(old, new):
    assert old in CELL
    return CELL.replace(old, new, 1)


@pytest.mark.parametrize("what", EDITS)
def test_an_edit_of_what_a_method_computes_changes_its_digest(what):
    assert code_digest(run_cell(edited(*EDITS[what]))) != code_digest(run_cell(CELL))


@pytest.mark.parametrize("what", NO_EDITS)
@pytest.mark.parametrize("name", ["__main__", None])
def test_anything_else_does_not(what, name):
    """Without a name a module's classes say that they are builtins."""
    assert code_digest(run_cell(edited(*NO_EDITS[what]), name)) == code_digest(run_cell(CELL))


def test_all_edits_differ_from_each_other():
    sources = {edited(*edit) for edit in EDITS.values()}
    assert len({code_digest(run_cell(source)) for source in sources}) == len(sources)


def test_another_process_has_the_same_digest():
    """Whatever the order of sets there, and the places in memory."""
    code = "from test_fingerprints import *; print(code_digest(run_cell(CELL)), fingerprints.library_digest())"
    here = f"{code_digest(run_cell(CELL))} {fingerprints.library_digest()}\n"
    for seed in ("1", "2"):
        environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parent), "PATH": ""}
        there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
        assert there.stdout == here, there.stderr


def test_a_list_used_twice_is_not_two_lists():
    first = "A = [1]\nB = A\nclass Own:\n    def loss(self):\n        return A, B"
    second = first.replace("B = A", "B = []")
    third = first.replace("B = A", "B = [1]")
    digests = {code_digest(run_cell(source)) for source in (first, second, third)}
    assert len(digests) == 3


def test_a_variable_that_does_not_exist_yet_is_no_error():
    cell = "class Own:\n    def loss(self):\n        return missing\n"
    assert code_digest(run_cell(cell)) != code_digest(run_cell(cell + "missing = 1"))


def test_helpers_from_a_file_beside_the_notebook_count_also_by_the_modules_name(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    package = tmp_path / "my_losses"
    package.mkdir()
    (package / "__init__.py").write_text("from . import deep\ndef focal(x):\n    return x\n")
    (package / "deep.py").write_text("LIMIT = 1\ndef clip(x):\n    return min(x, LIMIT)\n")
    cells = (
        "import my_losses\nclass Own:\n    def loss(self):\n        return my_losses.focal(my_losses.deep.clip(1))",
        "from my_losses import focal\nfrom my_losses.deep import clip\n"
        "class Own:\n    def loss(self):\n        return focal(clip(1))",
        "import my_losses\nclass Own:\n    def loss(self):\n"
        "        def inside(x):\n            return my_losses.focal(my_losses.deep.clip(x))\n        return inside(1)",
    )

    def digests():
        for name in [name for name in sys.modules if name.startswith("my_losses")]:
            del sys.modules[name]
        importlib.invalidate_caches()
        return [code_digest(run_cell(cell)) for cell in cells]

    before = digests()
    assert digests() == before
    (package / "__init__.py").write_text("from . import deep\ndef focal(x):\n    return 2 * x\n")
    edited_once = digests()
    (package / "deep.py").write_text("LIMIT = 200\ndef clip(x):\n    return min(x, LIMIT)\n")
    edited_twice = digests()
    for now, then in ((edited_once, before), (edited_twice, edited_once)):
        assert all(a != b for a, b in zip(now, then, strict=True))


def test_a_hook_put_on_a_class_of_the_library_counts_with_its_helpers(monkeypatch):
    def put(weight):
        module = {"__name__": "__main__"}
        exec("def scale(x):\n    return weight * x\ndef loss(self, x):\n    return scale(x)", module | {}, module)
        module["loss"].__globals__["weight"] = weight
        module["loss"].__globals__["scale"] = module["scale"]
        monkeypatch.setattr(FedAvg, "loss", module["loss"])
        return code_digest(METHODS["fedrep"])

    digests = {code_digest(METHODS["fedrep"]), put(1), put(2)}
    assert len(digests) == 3 and put(2) in digests


def test_a_data_set_that_a_hook_uses_counts_by_its_content(digits, few):
    digests = []
    for data in (digits, few, load("digits")):
        kind = run_cell("class Own:\n    def loss(self):\n        return DATA, FEDERATION")
        vars(kind)["loss"].__globals__.update(DATA=data, FEDERATION=split(data, clients=2))
        digests.append(code_digest(kind))
    assert digests[0] == digests[2] != digests[1]


def test_built_in_methods_all_differ():
    assert len({code_digest(method) for method in METHODS.values()}) == len(METHODS)


def test_the_library_s_own_code_counts_but_not_its_comments(tmp_path, monkeypatch):
    copy = tmp_path / "fedecouple_lite"
    shutil.copytree(LIBRARY, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(fingerprints, "LIBRARY", copy)
    digest = fingerprints.library_digest.__wrapped__  # not the remembered one
    before = digest()
    losses = copy / "losses.py"
    losses.write_text(losses.read_text().replace('"""Cross-entropy of', '"""The cross-entropy of') + "\n# a comment\n")
    (copy / "course" / "plots.py").write_text("nothing to do with rounds")
    assert digest() == before
    losses.write_text(losses.read_text().replace("temperature**2 * divergence", "divergence"))
    assert digest() != before
