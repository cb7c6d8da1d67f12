"""A notebook of the course set to another data set than the digits."""

import ast
import copy
import re

import nbformat

from fedecouple_lite.course.lessons import LESSONS

OFFERS = {
    "01_heterogeneous_clients": ("mnist", "fashion_mnist", "cifar10"),
    "03_anchors": ("fashion_mnist", "cifar10"),
    "05_fedecouple": ("fashion_mnist", "cifar10"),
    "07_ablations": ("fashion_mnist", "cifar10"),
}
IN_BROWSER = {"01_heterogeneous_clients": "mnist"}  # the browser's tests in `make test`; `make datasets` runs all
FEW = 40  # images of a client, on data sets of which a notebook claims nothing
FEWER = """
from fedecouple_lite.course.lessons import LESSONS

LESSONS["{dataset}"] = LESSONS["{dataset}"]._replace(per_client={few})
"""


def on_other_data(notebook, name, dataset):
    """A copy with one word changed and, where it claims nothing of that data set, fewer images."""
    changed = copy.deepcopy(notebook)
    lines = 0
    for cell in changed.cells:
        if cell.cell_type == "code" and 'DATASET = "digits"' in cell.source:
            for other in LESSONS.keys() - {"digits"}:
                assert (f'"{other}"' in cell.source) == (other in OFFERS[name]), f"{name} offers {other}?"
            cell.source = cell.source.replace('DATASET = "digits"', f'DATASET = "{dataset}"')
            lines += 1
    assert lines == 1
    if not claims_are_measured(changed, dataset):
        changed.cells.insert(2, nbformat.v4.new_code_cell(FEWER.format(dataset=dataset, few=FEW)))
    return changed


def claims_are_measured(notebook, dataset):
    """Whether a notebook's own line MEASURED = (...) names the data set."""
    measured = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            measured += re.findall(r"^MEASURED = (\(.*?\))", cell.source, re.M)
    return any(dataset in ast.literal_eval(names) for names in measured)
