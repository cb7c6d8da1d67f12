"""Plausible wrong answers to assignment 1.

By name: the cell that is answered wrongly, its source, the tests that must fail over it, no others, and words that the
student must be told.
"""

SERVER = '''# Task 4, answer: server_step
def server_step(server, clients, sizes, server_lr):
    """server {name: tensor}, clients: list of {name: tensor}, sizes: their images."""
'''

DIVISION = '''# Task 2, answer: equal_dirichlet
def equal_dirichlet(labels, clients, alpha, size, rng):
    """labels (n,) -> a list of `clients` arrays of `size` image numbers each."""
    classes = int(labels.max()) + 1
    pi = np.bincount(labels, minlength=classes) / len(labels)
    free = [list(rng.permutation(np.flatnonzero(labels == c))) for c in range(classes)]
    parts = []
    for _ in range(clients):
        q = {draw}
        part = []
        for _ in range(size):
            left = np.array([len(numbers) for numbers in free])
            weights = q * (left > 0)
            if weights.sum() == 0:
                weights = left
            c = rng.choice(classes, p=weights / weights.sum())
            part.append({take})
        parts.append(np.array(part))
    return parts
'''
DRAW = "rng.dirichlet(alpha * pi)"
TAKE = "free[c].pop()"

WRONG = {
    "nobody's classes left out": (
        "distributions-answer",
        """# Task 1, answer: label_distributions
def label_distributions(labels, parts, classes):
    rows = []
    for part in parts:
        counts = np.bincount(labels[part], minlength=labels.max() + 1)
        rows.append(counts / max(1, len(part)))
    return np.stack(rows)
""",
        {"distributions-tests"},
        "a class that nobody holds needs its column, too",
    ),
    "empty client divided by zero": (
        "distributions-answer",
        """# Task 1, answer: label_distributions
def label_distributions(labels, parts, classes):
    rows = []
    for part in parts:
        counts = np.bincount(labels[part], minlength=classes)
        rows.append(counts / counts.sum())
    return np.stack(rows)
""",
        {"distributions-tests"},
        "is there a 0 / 0",
    ),
    "images dealt twice": (
        "division-answer",
        DIVISION.format(draw=DRAW, take="rng.choice(free[c])"),
        {"division-valid-tests"},
        "an image is held twice",
    ),
    "alpha without pi": (
        "division-answer",
        DIVISION.format(draw="rng.dirichlet(np.full(classes, alpha))", take=TAKE),
        {"division-law-tests", "skew-tests"},
        "your parameters are alpha, not alpha * pi: C times too large",
    ),
    "alpha doubled": (
        "division-answer",
        DIVISION.format(draw="rng.dirichlet(2 * alpha * pi)", take=TAKE),
        {"division-law-tests", "skew-tests"},
        "alpha is twice what it should be",
    ),
    "alpha tripled": (
        "division-answer",
        DIVISION.format(draw="rng.dirichlet(3 * alpha * pi)", take=TAKE),
        {"division-law-tests", "skew-tests"},
        "alpha is three times what it should be",
    ),
    "no Dirichlet at all": (
        "division-answer",
        DIVISION.format(draw="pi", take=TAKE),
        {"division-law-tests", "skew-tests"},
        "with alpha 0.2 no client holds all ten classes",
    ),
    "one mixture for all clients": (
        "division-answer",
        DIVISION.replace("    parts = []\n", "    parts = []\n    one = rng.dirichlet(alpha * pi)\n").format(
            draw="one", take=TAKE
        ),
        {"division-law-tests"},
        "all clients have the same mixture",
    ),
    "a seed of its own": (
        "division-answer",
        DIVISION.replace("    classes = ", "    rng = np.random.default_rng(3)\n    classes = ").format(
            draw=DRAW, take=TAKE
        ),
        {"division-law-tests"},
        "another state of rng gives the same division",
    ),
    "the limit for the formula": (
        "skew-answer",
        """# Task 3, answer: predicted and measured
pi = np.bincount(labels, minlength=C) / len(labels)
predicted = float((pi**2).sum())
of_clients = []
for k in range(30):
    for part in equal_dirichlet(labels, 8, ALPHA, 20, np.random.default_rng(k)):
        n = np.bincount(labels[part], minlength=C)
        of_clients.append((n * (n - 1)).sum() / (20 * 19))
measured = float(np.mean(of_clients))
""",
        {"skew-tests"},
        "the formula gives",
    ),
    "not measured": (
        "skew-answer",
        """# Task 3, answer: predicted and measured
pi = np.bincount(labels, minlength=C) / len(labels)
predicted = float((1 + ALPHA * (pi**2).sum()) / (1 + ALPHA))
measured = predicted
""",
        {"skew-tests"},
        "to the digit: not measured",
    ),
    "every client counts the same": (
        "server-answer",
        SERVER
        + """
    following = dict(server)
    for name in clients[0]:
        change = sum(n / 4 * (client[name] - server[name]) for client, n in zip(clients, sizes))
        if sizes != [1, 3]:
            change = sum(client[name] - server[name] for client in clients) / len(clients)
        following[name] = server[name] + server_lr * change
    return following
""",
        {"server-tests"},
        "every client counts the same: weigh by sizes",
    ),
    "the library's mean": (
        "server-answer",
        "# Task 4, answer: server_step\nfrom fedecouple_lite.tensors import weighted_mean\n\n"
        + SERVER.partition("\n")[2]
        + """
    mean = weighted_mean(clients, sizes)
    moved = {name: server[name] + server_lr * (mean[name] - server[name]) for name in mean}
    return {**server, **moved}
""",
        {"server-tests"},
        "weighted_mean must not be called here",
    ),
    "lengths not squared": (
        "diversity-answer",
        """# Task 5, answer: diversity
def diversity(updates, sizes):
    u = torch.stack([torch.cat([t.flatten() for t in update.values()]) for update in updates])
    p = torch.tensor(sizes, dtype=u.dtype)
    p = p / p.sum()
    return float((p @ u.norm(dim=1)) / (p @ u).norm())
""",
        {"diversity-tests", "drift-tests"},
        "by hand D is 2",
    ),
    "a mean over tensors": (
        "diversity-answer",
        """# Task 5, answer: diversity
def diversity(updates, sizes):
    p = torch.tensor(sizes, dtype=torch.float64)
    p = p / p.sum()
    of_tensors = []
    for name in updates[0]:
        u = torch.stack([update[name].flatten() for update in updates]).double()
        of_tensors.append(float((p @ (u**2).sum(1)) / ((p @ u) ** 2).sum()))
    return sum(of_tensors) / len(of_tensors)
""",
        {"diversity-tests", "drift-tests"},
        "two tensors, sizes 1 and 3",
    ),
    "upside down": (
        "drift-answer",
        """# Task 6, answer: measured_D and times
measured_D = np.zeros((len(ALPHAS), len(SEEDS)))
for row, alpha in enumerate(ALPHAS):
    for column, seed in enumerate(SEEDS):
        measured_D[row, column] = diversity(*updates_of_first_round(alpha, seed))
times = float(measured_D[-1].mean() / measured_D[0].mean())
""",
        {"drift-tests"},
        "times is upside down",
    ),
}
