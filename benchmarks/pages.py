"""Tables for people, made from data/results: ablations, convergence and speed in docs/results.md, and the demo's in
README.md.

python benchmarks/pages.py
"""

import re

import pandas as pd
from published import PAGE, README, RESULTS

from fedecouple_lite import make
from fedecouple_lite.studies.ablation import PARTS, effects, variants
from fedecouple_lite.studies.convergence import fit_rate, running_mean
from fedecouple_lite.studies.tables import as_table

TITLES = {"digits": "digits", "fashion_mnist": "Fashion-MNIST"}
MEANINGS = {
    "GLF": "GLF, global half of the extractor's loss",
    "GFA": "GFA, anchors",
    "GPC": "GPC, distillation",
}


def put(marker: str, text: str, page: str) -> str:
    """`page` with `text` between the two comments named `marker`."""
    between = re.compile(rf"(<!-- {marker} -->\n).*?(<!-- /{marker} -->)", re.DOTALL)
    return between.sub(lambda match: f"{match[1]}{text}\n{match[2]}", page)


def markdown(table: pd.DataFrame) -> str:
    """A DataFrame as a Markdown table."""
    header = list(table.columns)
    rule = ["---"] * len(header)
    cells = table.astype(str).to_numpy().tolist()
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, rule, *cells])


def ablations() -> str:
    """Each part's effect, mean +- standard deviation over seeds, alone and in the whole."""
    rows = pd.read_csv(RESULTS / "ablations.csv")
    rows = rows[rows["combination"].isin(variants(make("fedecouple")))]  # without those that change a form
    shown = pd.DataFrame({"part": [MEANINGS[part] for part in PARTS]})
    for dataset, title in TITLES.items():
        answers = effects(rows[rows["dataset"] == dataset]).set_index(["question", "part"])
        for question in ("alone", "in the whole"):
            by_part = answers.loc[question].loc[list(PARTS)]
            shown[f"{title}: {question}"] = [f"{row.points:+.1f} +- {row.std:.1f}" for row in by_part.itertuples()]
    return markdown(shown)


def convergence() -> str:
    """Log-log slope from round 50 on of the running average of squared gradient norms: of the seeds' mean, and of each
    seed by itself."""
    rows = pd.read_csv(RESULTS / "convergence.csv")
    rows["norm"] = rows["extractor"] + rows["classifiers"]
    lines = []
    for case in ("FedAvg", "FedRep", "FedeCouple, anchors only", "FedeCouple"):
        curves = rows[rows["case"] == case].pivot(index="seed", columns="round", values="norm")
        rate = fit_rate(running_mean(curves.to_numpy()), first=50)
        of_seeds = ", ".join(f"{slope:+.2f}" for slope in rate.of_seeds)
        lines.append({"method": case, "slope of the seeds' mean": f"{rate.slope:+.2f}", "each seed's own": of_seeds})
    return markdown(pd.DataFrame(lines))


def speed() -> str:
    """Each backend's time as a share of the bare loop's."""
    rows = pd.read_csv(RESULTS / "speed" / "ratio_to_bare_loop.csv", comment="#")
    shown = pd.DataFrame()
    shown["net and images"] = rows["setting"] + ", E = " + rows["E"].astype(str)
    shown["method"] = rows["method"]
    for backend in ("loop", "threads", "vmap"):
        shown[backend] = rows[f"{backend} / bare"].map("{:.2f}".format)
    return markdown(shown)


def gpu() -> str:
    """Seconds of a round on one GPU, client by client and in stacks."""
    rows = pd.read_csv(RESULTS / "speed" / "gpu.csv", comment="#")
    shown = rows.drop(columns=["device", "share of bare throughput"])
    return markdown(shown)


def demo() -> str:
    """What `make demo` prints, without what it says of chance."""
    shown = as_table(pd.read_csv(RESULTS / "demo" / "demo.csv"))
    return markdown(shown.drop(columns=["p", "KB down"]).replace("-", "none"))


def filled(page: str) -> str:
    """`page` with those of the tables that it has markers for, as they must be."""
    for marker, table in TABLES.items():
        page = put(marker, table(), page)
    return page


TABLES = {"ablations": ablations, "convergence": convergence, "speed": speed, "gpu": gpu, "demo": demo}  # by marker


if __name__ == "__main__":
    for path in (PAGE, README):
        path.write_text(filled(path.read_text()))
