"""Tables for people, made from data/results: ablations, convergence, speed, stability, scale, security and Flower in
docs/results.md; in README.md the demo's, and FedeCouple's leads.

python benchmarks/pages.py
"""

import json
import re

import pandas as pd
from published import PAGE, README, RESULTS

from fedecouple_lite import make
from fedecouple_lite.studies.ablation import PARTS, effects, variants
from fedecouple_lite.studies.benchmark import BASELINES
from fedecouple_lite.studies.convergence import fit_rate, running_mean
from fedecouple_lite.studies.tables import as_table, first_to_reach, is_fedecouple, margins, paired_lead

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


def with_interval(points: float, low: float, high: float) -> str:
    """A difference in points and its 95 % interval, in words: "+0.5 [-0.2, +1.3]"."""
    return f"{points:+.1f} [{low:+.1f}, {high:+.1f}]"


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


def share_of_peak() -> str:
    """Billions of operations a second that a round reaches, and what share that is of the machine's best."""
    rows = pd.read_csv(RESULTS / "speed" / "share_of_peak.csv", comment="#")
    shown = rows[["net", "batch size"]].copy()
    for backend in ("loop", "threads", "vmap"):
        shown[backend] = rows[f"{backend} GFLOP/s"].astype(str) + rows[f"{backend} / peak"].map(" ({:.0%})".format)
    return markdown(shown)


def number_of_clients() -> str:
    """Seconds of a round, and memory, by the number of clients and how many take part."""
    rows = pd.read_csv(RESULTS / "speed" / "number_of_clients.csv", comment="#")
    seconds = rows.pivot(index="clients", columns="participation", values="round s")
    shown = pd.DataFrame({"clients": [f"{clients:,}" for clients in seconds.index]})
    for share in seconds:
        shown[f"{share:.0%} take part, s a round"] = seconds[share].map("{:.2f}".format).replace("nan", "-").to_numpy()
    memory = rows.groupby("clients")[["clients' state MB", "peak memory MB"]].max()
    for title, of_clients in memory.items():
        shown[str(title)] = of_clients.map("{:,.0f}".format).to_numpy()
    return markdown(shown)


def precision_time() -> str:
    """A round in bfloat16 as a share of its time in float32."""
    rows = pd.read_csv(RESULTS / "speed" / "precision_time.csv", comment="#")
    shown = rows.pivot(index=["net", "method", "backend"], columns="batch size", values="bf16 / float32")
    shown.columns = pd.Index([f"batches of {size}" for size in shown.columns])
    return markdown(shown.map("{:.2f}".format).reset_index())


def precision_accuracy() -> str:
    """Float32's accuracy, and how many points bfloat16's is above it: paired by seed, with the interval."""
    rows = pd.read_csv(RESULTS / "speed" / "precision_accuracy.csv")
    shown = pd.DataFrame({"method": list(rows["method"].unique())})
    for dataset, part in rows.groupby("dataset", sort=False):
        percent = 100 * part.pivot(index=["method", "seed"], columns="precision", values="personal")
        exact = []
        differences = []
        for method in shown["method"]:
            of_method = percent.loc[method]
            exact.append(f"{of_method['float32'].mean():.1f} +- {of_method['float32'].std():.1f}")
            lead = paired_lead(of_method["bf16"], of_method["float32"])
            differences.append(with_interval(lead.mean, lead.low, lead.high))
        title = {**TITLES, "cifar10": "CIFAR-10"}[str(dataset)]
        shown[f"{title}, float32"] = exact
        shown[f"{title}, bf16 above it"] = differences
    return markdown(shown)


def fine_tuning() -> str:
    """Each method of `laptop` as it predicts, by both moments, and after the same fine-tuning of its classifier. FedAvg
    + fine-tuning is FedAvg's last column; what FedBABU receives is without the fine-tuning of its own."""
    stored = pd.read_csv(RESULTS / "benchmark" / "laptop.csv")
    tuned = pd.read_csv(RESULTS / "benchmark" / "laptop-fine_tuned.csv")
    methods = [method for method in stored["method"].unique() if method != "fedavg_ft"]
    titles = []
    columns = []
    for partition in stored["partition"].unique():
        of_cell = stored[stored["partition"] == partition].groupby("method")
        of_tuned = 100 * tuned[tuned["partition"] == partition].groupby("method")["personal"].mean()
        received = 100 * of_cell["personal_received"].mean()
        received["fedbabu"] = of_tuned["fedbabu, not fine-tuned"]
        trained = 100 * of_cell["personal"].mean()
        titles += [f"{partition}: received", "trained", "fine-tuned"]
        columns += [received[methods], trained[methods], of_tuned[methods]]
    shown = pd.concat(columns, axis="columns").map("{:.1f}".format)
    shown.columns = pd.Index(titles)
    return markdown(shown.rename_axis("method").reset_index())


def reached() -> str:
    """In every cell of `medium`: who is first at 90 % of the best accuracy, by gradient steps and by bytes, and what
    FedeCouple's quickest coupling takes."""
    curves = pd.read_csv(RESULTS / "benchmark" / "medium-curves.csv")
    lines = []
    for (dataset, partition), of_cell in curves.groupby(["dataset", "partition"], sort=False):
        took = first_to_reach(of_cell)
        target = took.attrs["target"]
        line = {"cell": f"{dataset}, {partition}", "90 % of the best": f"{100 * target:.1f} %"}
        for cost, unit in {"steps": "steps", "megabytes": "MB"}.items():
            there = took[took[cost] > 0]  # Local sends nothing: in megabytes it is no rival
            ours = there[[is_fedecouple(str(row)) for row in there.index]]
            line[f"first in {cost}"] = in_words(there, cost, unit)
            line[f"FedeCouple, {cost}"] = in_words(ours, cost, unit)
        lines.append(line)
    return markdown(pd.DataFrame(lines))


def in_words(took: pd.DataFrame, cost: str, unit: str) -> str:
    """The row that took least, and how much."""
    if took.empty:
        return "not reached"
    first = took[cost].idxmin()
    digits = 0 if cost == "steps" else 1
    return f"{first}: {took.loc[first, cost]:,.{digits}f} {unit}"


def leads_of_the_default() -> str:
    """In every cell of `medium`: FedeCouple's lead, in its default coupling, with its interval; at equal epochs and,
    in `medium_steps`, where FedBABU is the only one of the nine, at equal steps."""
    shown = {}
    for name, equal, of_nine in (
        ("medium", "equal epochs", "best of the nine"),
        ("medium_steps", "equal steps", "FedBABU"),
    ):
        rows = pd.read_csv(RESULTS / "benchmark" / f"{name}.csv")
        for rivals, title in {BASELINES: of_nine, None: "all others"}.items():
            of_cell = {}
            for lead in margins(rows, rivals).itertuples():
                lead_in_words = with_interval(lead.points, lead.low, lead.high)
                of_cell[f"{lead.dataset}, {lead.partition}"] = lead_in_words
            shown[f"{equal}: {title}"] = of_cell
    table = pd.DataFrame(shown).fillna("not measured")
    return markdown(table.rename_axis("lead over").reset_index())


def short_trials() -> str:
    """Rows of `medium` for which a trial's last third and its last five evaluated rounds choose differently: accuracy
    of the runs that each of them leads to."""
    chosen = pd.read_csv(RESULTS / "benchmark" / "medium.csv")
    others = pd.read_csv(RESULTS / "benchmark" / "short_trials.csv")
    lines = []
    for (dataset, partition, method), of_other in others.groupby(["dataset", "partition", "method"], sort=False):
        of_cell = chosen[(chosen["dataset"] == dataset) & (chosen["partition"] == partition)]
        of_chosen = of_cell[of_cell["method"] == method]
        by_seed = [100 * rows.set_index("seed")["personal"] for rows in (of_chosen, of_other)]
        line = {"cell": f"{dataset}, {partition}", "row": method}
        for title, rows, percent in zip(("last third", "last five"), (of_chosen, of_other), by_seed, strict=True):
            lr = json.loads(rows["hyperparameters"].iloc[0])["lr"]
            line[f"judged by its {title}"] = f"{percent.mean():.1f} +- {percent.std():.1f} (lr {lr:g})"
        lead = paired_lead(*by_seed)
        line["points more"] = with_interval(lead.mean, lead.low, lead.high)
        lines.append(line)
    return markdown(pd.DataFrame(lines))


def other_values() -> str:
    """FedeCouple with values that no trial chose: its accuracy by both moments, and how many points above the row of
    the same coupling in `medium`, and above the best of the others there."""
    tried = pd.read_csv(RESULTS / "benchmark" / "other_values.csv")
    stored = pd.read_csv(RESULTS / "benchmark" / "medium.csv")
    lines = []
    for (dataset, partition, case), rows in tried.groupby(["dataset", "partition", "case"], sort=False):
        of_cell = stored[(stored["dataset"] == dataset) & (stored["partition"] == partition)]
        as_run = rows["hyperparameters"].map(json.loads)
        coupling = as_run.iloc[0]["coupling"]
        same_coupling = "fedecouple" if coupling == "alternate" else f"fedecouple_{coupling}"
        percent = 100 * of_cell.pivot(index="seed", columns="method", values="personal")
        others = [method for method in percent if not is_fedecouple(str(method))]
        best = percent[others].mean().idxmax()
        ours = 100 * rows.set_index("seed")["personal"]
        line = {"cell": f"{dataset}, {partition}", "FedeCouple": case}
        line["lr as run"] = ", ".join(f"{values['lr']:g}" for values in as_run)
        line["trained"] = f"{ours.mean():.1f} +- {ours.std():.1f}"
        line["received"] = f"{100 * rows['personal_received'].mean():.1f}"
        for title, rival in (("as tuned", same_coupling), ("the best other", best)):
            lead = paired_lead(ours, percent[rival])
            line[f"above {title}"] = f"{with_interval(lead.mean, lead.low, lead.high)} ({rival})"
        lines.append(line)
    return markdown(pd.DataFrame(lines))


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


def mean_and_spread(values: pd.Series, form: str = "{:.1f}") -> str:
    """The mean of some seeds' figures, +- their standard deviation."""
    return f"{form.format(values.mean())} +- {form.format(values.std())}"


def personal_unless_diverged(rows: pd.DataFrame) -> str:
    """Some seeds' personal accuracy in percent; where one of the runs diverged, how many did in place of a mean."""
    diverged = int((rows["diverged"] > 0).sum())
    if diverged:
        return f"{diverged} of {len(rows)} diverged"
    return mean_and_spread(100 * rows["personal"])


def poisoning() -> str:
    """A table for each attack: honest clients' personal accuracy by the share of attackers, a row for each method and
    each way to average."""
    rows = pd.read_csv(RESULTS / "security" / "poisoning.csv")
    without = rows[rows["attack"] == "none"]
    tables = []
    for attack in ("sign flip", "label flip"):
        shown = []
        of_attack = pd.concat([without, rows[rows["attack"] == attack]])
        for (method, aggregation), part in of_attack.groupby(["method", "aggregation"], sort=False):
            line = {attack: method, "the server averages by": aggregation}
            for share, of_share in part.groupby("share"):
                title = f"{share:.0%} attack" if share else "nobody attacks"
                line[title] = personal_unless_diverged(of_share)
            shown.append(line)
        by_method = {name: place for place, name in enumerate(rows["method"].unique())}
        shown.sort(key=lambda line: by_method[line[attack]])
        tables.append(markdown(pd.DataFrame(shown)))
    return "\n\n".join(tables)


def backdoor() -> str:
    """How many stamped images are taken for the target, and how many others are right, by method and defence."""
    rows = pd.read_csv(RESULTS / "security" / "backdoor.csv")
    titles = {
        "server": "backdoor %, server's",
        "personal": "backdoor %, personal",
        "server_accuracy": "right %, server's",
        "personal_accuracy": "right %, personal",
    }
    shown = []
    for method in rows["method"].unique():
        of_method = rows[rows["method"] == method]
        for (attack, defence), part in of_method.groupby(["attack", "defence"], sort=False):
            line = {"method": method, "defence": "nobody attacks" if attack == "none" else defence}
            for figure, title in titles.items():
                has_none = part[figure].isna().any()
                line[title] = "no model" if has_none else mean_and_spread(100 * part[figure])
            shown.append(line)
    return markdown(pd.DataFrame(shown))


def membership() -> str:
    """A table for each setting: how well a client's upload tells its training images from others."""
    rows = pd.read_csv(RESULTS / "security" / "membership.csv")
    tables = []
    for (images, epochs), of_setting in rows.groupby(["images", "epochs"], sort=False):
        shown = []
        for method, of_method in of_setting.groupby("method", sort=False):
            parts = dict(list(of_method.groupby("attack")))
            line = {f"images: {images}, epochs: {epochs}": method}
            for attack in ("loss", "likelihood ratio"):
                line[f"AUC, {attack}"] = mean_and_spread(parts[attack]["auc"], "{:.3f}")
                line[f"control, {attack}"] = mean_and_spread(parts[f"{attack}, control"]["auc"], "{:.3f}")
            for attack in ("loss", "likelihood ratio"):
                line[f"found % at 1 %, {attack}"] = mean_and_spread(100 * parts[attack]["tpr"])
            line["error of a guess"] = f"{parts['loss']['error'].mean():.3f}"
            shown.append(line)
        tables.append(markdown(pd.DataFrame(shown)))
    return "\n\n".join(tables)


def noise() -> str:
    """Personal accuracy under clipping and noise, and the privacy that is spent."""
    rows = pd.read_csv(RESULTS / "security" / "noise.csv")
    shown = []
    for (clip, multiplier), part in rows.groupby(["clip", "multiplier"], sort=False):
        line = {"clip": "none" if clip == float("inf") else f"{clip:g}", "multiplier": f"{multiplier:g}"}
        for method, of_method in part.groupby("method", sort=False):
            line[method] = personal_unless_diverged(of_method)
        for figure, title in (("epsilon_server", "epsilon, uploads"), ("epsilon_others", "epsilon, model only")):
            epsilon = part[figure].max()
            line[title] = "no limit" if epsilon == float("inf") else f"{epsilon:,.0f}"
        shown.append(line)
    return markdown(pd.DataFrame(shown))


def inversion() -> str:
    """How alike images made from an upload are to the true ones, and whether the labels read from it are right."""
    rows = pd.read_csv(RESULTS / "security" / "inversion.csv")
    shown = []
    for (images, epochs, method), part in rows.groupby(["images", "epochs", "method"], sort=False):
        line = {"images": images, "epochs": epochs, "method": method}
        line["PSNR dB, median (mean)"] = f"{part['psnr'].median():.1f} ({part['psnr'].mean():.1f})"
        line["SSIM, median (mean)"] = f"{part['ssim'].median():.2f} ({part['ssim'].mean():.2f})"
        read = part["labels"].dropna()
        line["labels read"] = f"{read.sum():.0f} of {len(read)}" if len(read) else "not sent"
        shown.append(line)
    return markdown(pd.DataFrame(shown))


def class_mix() -> str:
    """How far a client's class mix, as its upload says it, is from the truth, in percent of its images."""
    rows = pd.read_csv(RESULTS / "security" / "class_mix.csv")
    read = over_seeds(rows, ["epochs"], "distance")
    guessed = over_seeds(rows[rows["method"] == "FedAvg"], ["epochs"], "of_a_guess")
    shown = pd.concat([read, guessed.rename(index={"FedAvg": "a guess: all classes alike"})])
    shown.columns = [f"% wrong, epochs: {epochs}" for epochs in shown.columns]
    return markdown(shown.rename_axis("method").reset_index())


def flower() -> str:
    """A round in this process, in Flower's simulation and on loopback."""
    rows = pd.read_csv(RESULTS / "flower" / "rounds.csv")
    here = rows[rows["where"] == "in this process"].set_index("clients")["seconds"]
    shown = pd.DataFrame({"clients": rows["clients"].map("{:,}".format), "where": rows["where"]})
    shown["s a round"] = rows["seconds"].map("{:.2f}".format)
    shown["more than in this process, s"] = (rows["seconds"] - rows["clients"].map(here)).map("{:.2f}".format)
    shown["clients a second"] = rows["clients_per_second"].map("{:,.0f}".format)
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
    "reached": reached,
    "short trials": short_trials,
    "other values": other_values,
    "fine tuning": fine_tuning,
    "share of peak": share_of_peak,
    "number of clients": number_of_clients,
    "precision accuracy": precision_accuracy,
    "precision time": precision_time,
    "participation": participation,
    "dropout": dropout,
    "writers": writers,
    "clients": clients,
    "nets": nets,
    "costs": costs,
    "poisoning": poisoning,
    "backdoor": backdoor,
    "membership": membership,
    "noise": noise,
    "inversion": inversion,
    "class mix": class_mix,
    "flower": flower,
    "demo": demo,
    "leads": leads_of_the_default,
}


if __name__ == "__main__":
    for path in (PAGE, README):
        path.write_text(filled(path.read_text()))
