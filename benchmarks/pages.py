"""Tables for people, made from data/results: ablations, convergence, speed, stability and scale in docs/results.md, and
the demo's in README.md.

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


def over_seeds(rows: pd.DataFrame, by: list[str], figure: str = "personal") -> pd.DataFrame:
    """`figure` in percent, mean +- standard deviation over seeds: a row per method, a column per value of `by`."""
    order = list(rows["method"].unique())
    groups = 100 * rows.groupby(["method", *by], sort=False)[figure].agg(["mean", "std"])
    words = groups["mean"].map("{:.1f}".format) + " +- " + groups["std"].map("{:.1f}".format)
    return words.unstack(by).loc[order].fillna("not run")


def participation() -> str:
    """Personal accuracy by the share of clients in a round, and how much it swings from round to round."""
    rows = pd.read_csv(RESULTS / "stability" / "participation.csv")
    accuracy = over_seeds(rows, ["participation"])
    swings = 100 * rows.groupby(["method", "participation"])["over_rounds"].mean().unstack("participation")
    shown = pd.DataFrame({"method": accuracy.index})
    for share in accuracy.columns:
        shown[f"{share:.0%} of the clients"] = accuracy[share].to_numpy()
    for share in accuracy.columns:
        shown[f"over rounds, {share:.0%}"] = swings.loc[accuracy.index, share].map("{:.1f}".format).to_numpy()
    return markdown(shown)


def table_for_each(rows: pd.DataFrame, kind: str, heading: str, by: str, column: str) -> str:
    """A table of personal accuracy for each value of `kind`, which follows `heading`; `column`: how a value of `by` is
    written."""
    tables = []
    for value, part in rows.groupby(kind, sort=False):
        accuracy = over_seeds(part, [by])
        accuracy.columns = [column.format(number) for number in accuracy.columns]
        tables.append(markdown(accuracy.rename_axis(f"{heading} {value}").reset_index()))
    return "\n\n".join(tables)


def dropout() -> str:
    """Personal accuracy by the share of a cohort that drops out, before and after training."""
    rows = pd.read_csv(RESULTS / "stability" / "dropout.csv")
    return table_for_each(rows, "dropout", "dropout", "share", "{:.0%}")


def writers() -> str:
    """FEMNIST by writer: those who trained, and the newcomers."""
    rows = pd.read_csv(RESULTS / "stability" / "writers.csv")
    titles = {
        "personal": "writers %, trained",
        "personal_received": "writers %, received",
        "percentile10": "10th percentile %, trained",
        "newcomers": "newcomers %",
        "newcomers_percentile10": "their 10th percentile %",
    }
    shown = pd.DataFrame({"method": rows["method"].unique()})
    for figure, title in titles.items():
        shown[title] = over_seeds(rows, ["writers"], figure).iloc[:, 0].to_numpy()
    return markdown(shown)


def clients() -> str:
    """Personal accuracy by the number of clients, with the same images in all, and with the same number each."""
    rows = pd.read_csv(RESULTS / "stability" / "clients.csv")
    return table_for_each(rows, "constant", "constant:", "clients", "{:,} clients")


def nets() -> str:
    """A small net against a large one."""
    rows = pd.read_csv(RESULTS / "stability" / "net.csv")
    shown = over_seeds(rows, ["net"])
    megabytes = rows.groupby(["method", "net"])["upload_bytes"].first().unstack("net") / 1e6
    seconds = rows.groupby(["method", "net"])["seconds"].median().unstack("net")
    for net in ("cnn32", "resnet18"):
        shown[f"{net}, MB up"] = megabytes[net].map("{:.1f}".format)
        shown[f"{net}, s a round"] = seconds[net].map("{:.2f}".format)
    return markdown(shown.rename_axis("method").reset_index())


def costs() -> str:
    """What travels for one client in one round, and what it keeps, in kilobytes."""
    rows = pd.read_csv(RESULTS / "stability" / "costs.csv").query("net == 'small_cnn' and upload_bytes.notna()")
    shown = pd.DataFrame({"method": rows["method"]})
    for figure, title in (("upload_bytes", "KB up"), ("download_bytes", "KB down"), ("kept_bytes", "KB kept")):
        shown[title] = (rows[figure] / 1000).map("{:.1f}".format)
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


TABLES = {  # by marker
    "ablations": ablations,
    "convergence": convergence,
    "speed": speed,
    "gpu": gpu,
    "participation": participation,
    "dropout": dropout,
    "writers": writers,
    "clients": clients,
    "nets": nets,
    "costs": costs,
    "demo": demo,
}


if __name__ == "__main__":
    for path in (PAGE, README):
        path.write_text(filled(path.read_text()))
