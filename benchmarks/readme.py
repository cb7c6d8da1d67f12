"""The README's tables of ablations, convergence and speed, made from data/results:

python benchmarks/readme.py
"""

import re
from pathlib import Path

import pandas as pd

from fedecouple_lite import make
from fedecouple_lite.studies.ablation import PARTS, effects, variants
from fedecouple_lite.studies.convergence import fit_rate, running_mean

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "data" / "results"


def put(marker: str, text: str, readme: str) -> str:
    """`readme` with `text` between the two comments named `marker`."""
    return re.sub(rf"(?s)(<!-- {marker} -->\n).*?(<!-- /{marker} -->)", lambda m: f"{m[1]}{text}\n{m[2]}", readme)


def markdown(table: pd.DataFrame) -> str:
    """A DataFrame as a Markdown table."""
    lines = [list(table.columns), ["---"] * len(table.columns), *table.astype(str).to_numpy().tolist()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def ablations() -> str:
    """Each part's effect, mean +- standard deviation over seeds, alone and in the whole."""
    rows = pd.read_csv(RESULTS / "ablations.csv")
    rows = rows[rows["combination"].isin(variants(make("fedecouple")))]
    shown = {"part": ["GLF, global half of the extractor's loss", "GFA, anchors", "GPC, distillation"]}
    for dataset, title in (("digits", "digits"), ("fashion_mnist", "Fashion-MNIST")):
        found = effects(rows[rows["dataset"] == dataset]).set_index(["question", "part"])
        for question in ("alone", "in the whole"):
            answers = found.loc[question].loc[list(PARTS)].itertuples()
            shown[f"{title}: {question}"] = [f"{a.points:+.1f} +- {a.std:.1f}" for a in answers]
    return markdown(pd.DataFrame(shown))


def convergence() -> str:
    """Log-log slope from round 50 on of the running average of squared gradient norms, with its interval."""
    rows, shown = pd.read_csv(RESULTS / "convergence.csv"), []
    for case in ("FedAvg", "FedRep", "FedeCouple, anchors only", "FedeCouple"):
        part = rows[rows["case"] == case].assign(norm=lambda d: d["extractor"] + d["classifiers"])
        rate = fit_rate(running_mean(part.pivot(index="seed", columns="round", values="norm").to_numpy()), first=50)
        slope = f"{rate.slope:+.2f} [{rate.low:+.2f}, {rate.high:+.2f}]"
        shown.append({"method": case, "slope [95 % bootstrap interval over three seeds]": slope})
    return markdown(pd.DataFrame(shown))


def speed() -> str:
    """Each backend's time as a share of the bare loop's."""
    rows = pd.read_csv(RESULTS / "speed" / "ratio_to_bare_loop.csv", comment="#")
    table = pd.DataFrame(
        {"net and images": rows["setting"] + ", E = " + rows["E"].astype(str), "method": rows["method"]}
    )
    for backend in ("loop", "threads", "vmap"):
        table[backend] = rows[f"{backend} / bare"].map("{:.2f}".format)
    return markdown(table)


def filled(readme: str) -> str:
    """`readme` with the three tables as they must be."""
    for part in (ablations, convergence, speed):
        readme = put(part.__name__, part(), readme)
    return readme


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(filled(path.read_text()))
