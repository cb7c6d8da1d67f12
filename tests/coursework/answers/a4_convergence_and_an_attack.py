"""Plausible wrong answers to assignment 4.

By name: the cell that is answered wrongly, its source, the tests that must fail over it, no others, and words that the
student must be told.
"""

LOCAL = '''# Task 1, answer: local_steps
def local_steps(w, H_i, c_i, lr, E):
    """w (m,), H_i (m, m), c_i (m,), lr, E -> the weights after E steps, (m,)."""
'''

FIXED = '''# Task 2, answer: fixed_point
def fixed_point(H, c, p, lr, E):
    """H (N, m, m), c (N, m), p (N,) with sum 1, lr, E -> the fixed point (m,)."""
'''

RATE = '''# Task 3, answer: rate
def rate(norms, first, last):
    """norms (T,), rounds 1 <= first < last <= T -> the slope, a number."""
'''

FLOORS = """# Task 5, answer: floors
floors = None
curves = {{}}
H, c, p = problem["H"], problem["c"], problem["p"]
floors = {{}}
for name, (lr, E) in settings.items():
    w = np.zeros(m)
    for _ in range(ROUNDS):
        gradients = [H[i] @ (w - c[i]) for i in range(N)]
        floors[name] = {measured}
        w = {average}
"""
MEASURED = "(sum(p[i] * gradients[i] for i in range(N)) ** 2).sum()"
AVERAGE = "sum(p[i] * local_steps(w, H[i], c[i], lr, E) for i in range(N))"

STEP = '''# Task 6, answer: largest_lr_for
def largest_lr_for(target, L, sigma, kappa, N, K):
    """target > 0, the theorem's constants -> the largest step size, a number."""
    limit = 1 / (4 * L)
    noise = L * sigma**2 / K * (1 + 1 / N)
    drift = L**2 * (kappa**2 + 2 * sigma**2 / K)
    if drift == 0:
        return limit / K
'''

INVERT = '''# Task 7, answer: invert_one
def invert_one(dW, db):
    """dW (C, d), db (C,) of one image -> {"image": (d,), "label": a whole number}."""
'''

PSNR = '''# Task 8, answer: psnr
def psnr(images, candidates):
    """images (B, d), candidates (R, d) -> (B,): each image's best candidate, in dB."""
    differences = images[:, None, :] - candidates[None, :, :]
'''

UNMIX = '''# Task 9, answer: unmix
def unmix(dW, db):
    """dW (C, d), db (C,) -> {"images": (C, d) class means, "shares": (C,) n_c / B}."""
'''

LEAK = """# Task 10, answer: leak
leak = {{name: [] for name in NAMES}}


def from_extractor(x, y, steps):
    upload = update_of(decoupled, x, y, steps)
    dA, da = upload["extractor.weight"], upload["extractor.bias"]
    moved = da.abs() > 1e-6
    return (dA[moved] / da[moved, None]){clip}


def candidates(x, y):
    upload = update_of(linear, x, y)
    {of_classes}
    one, many = from_extractor(x, y, 1), from_extractor(x, y, {many})
    return dict(zip(NAMES, (of_classes{clip}, one, many, strangers)))


for B in SIZES:
    scores = {{name: [] for name in NAMES}}
    for places in batches[B]:
        x, y = victim_x[places], victim_y[places]
        for name, these in candidates(x, y).items():
            scores[name].append(float(psnr(x, these).mean()))
    for name in NAMES:
        leak[name].append(float(np.mean(scores[name])))
"""
UNMIXED = """found = unmix(upload["classifier.weight"], upload["classifier.bias"])
    of_classes = found["images"][found["shares"] >= 0.001]"""
QUOTIENTS = 'of_classes = upload["classifier.weight"] / upload["classifier.bias"][:, None]'

DEFEND = '''# Task 12, answer: defend
def defend(update, clip, z, noise):
    """{name: tensor}, S, z, {name: standard normal numbers} -> {name: tensor}."""
'''

# A measurement is made, and tested, with the student's own functions.
LINKED = (
    {"local-answer", "floors-answer"},
    {"psnr-answer", "unmix-answer", "leak-answer"},
)

WRONG = {
    "one long step": (
        "local-answer",
        LOCAL + "    return w - E * lr * H_i @ (w - c_i)\n",
        {"local-tests"},
        "by hand two steps lead to 9/16",
    ),
    "weights changed in place": (
        "local-answer",
        LOCAL + "    for _ in range(E):\n        w -= lr * H_i @ (w - c_i)\n    return w\n",
        {"local-tests", "floors-tests"},
        "changes what it is given, its argument number 1",
    ),
    "minimum of the mean": (
        "fixed-answer",
        FIXED
        + """    return np.linalg.solve(np.einsum("i,ijk->jk", p, H), np.einsum("i,ijk,ik->j", p, H, c))
""",
        {"fixed-tests"},
        "by hand it is 15/22",
    ),
    "power of each entry": (
        "fixed-answer",
        FIXED
        + """    G = np.eye(c.shape[1]) - (np.eye(c.shape[1]) - lr * H) ** E
    G = p[:, None, None] * G
    return np.linalg.solve(G.sum(0), np.einsum("ijk,ik->j", G, c))
""",
        {"fixed-tests"},
        "a matrix needs np.linalg.matrix_power",
    ),
    "slope between two points": (
        "rate-answer",
        RATE
        + """    average = np.cumsum(norms) / np.arange(1, len(norms) + 1)
    return np.log(average[last - 1] / average[first - 1]) / np.log(last / first)
""",
        {"rate-tests"},
        "that is the slope between two points",
    ),
    "floor linear in the step": (
        "predict-answer",
        """# Task 4, answer: guess
guess = "1/2" if "halved" in CHANGE else "2"
""",
        {"predict-tests"},
        "It goes with the square of gamma",
    ),
    "mean of squared norms": (
        "floors-answer",
        FLOORS.format(measured="sum(p[i] * (gradients[i] ** 2).sum() for i in range(N))", average=AVERAGE),
        {"floors-tests"},
        "the mean of the clients' squared norms",
    ),
    "rounds without weights": (
        "floors-answer",
        FLOORS.format(
            measured=MEASURED,
            average="sum(local_steps(w, H[i], c[i], lr, E) for i in range(N)) / N",
        ),
        {"floors-tests"},
        "every client counts the same in your rounds",
    ),
    "gamma in place of the step": (
        "step-answer",
        STEP
        + """    gamma = (np.sqrt(noise**2 + 4 * drift * target * 2 / 5) - noise) / (2 * drift)
    return min(gamma, limit)
""",
        {"step-tests"},
        "by hand the step size is 1/16",
    ),
    "public exercise pasted": (
        "step-answer",
        STEP + "    return 1 / (4 * L * K)\n",
        {"step-tests"},
        "by hand the step size is 1/16",
    ),
    "noise forgotten": (
        "step-answer",
        STEP + "    return min(np.sqrt(target * 2 / 5 / drift), limit) / K\n",
        {"step-tests"},
        "the noise is missing",
    ),
    "first row": (
        "invert-answer",
        INVERT + '    return {"image": dW[0] / db[0], "label": int(db.argmin())}\n',
        {"invert-tests"},
        "you divide by a bias gradient of 0",
    ),
    "root of the error": (
        "psnr-answer",
        PSNR + "    return 10 * torch.log10(1 / differences.square().mean(2).sqrt().min(1).values.clamp(min=1e-6))\n",
        {"psnr-tests"},
        "by hand it is 20 dB",
    ),
    "one candidate for all": (
        "psnr-answer",
        PSNR
        + """    mse = differences.square().mean(2).clamp(min=1e-6)
    return 10 * torch.log10(1 / mse[:, mse.mean(0).argmin()])
""",
        {"psnr-tests"},
        "each image has a nearest candidate of its own",
    ),
    "plain quotients": (
        "unmix-answer",
        UNMIX
        + """    shares = db.max() - db
    return {"images": torch.where(shares[:, None] >= 0.001, dW / db[:, None], 0.0), "shares": shares}
""",
        {"unmix-tests"},
        "by hand (0.9, 0, 0.3)",
    ),
    "class 1 always absent": (
        "unmix-answer",
        UNMIX
        + """    shares = db[1] - db
    held = shares >= 0.001
    images = torch.zeros_like(dW)
    images[held] = (dW[1] - dW[held]) / shares[held, None]
    return {"images": images, "shares": shares}
""",
        {"unmix-tests", "leak-tests"},
        "class 1 need not be the absent one",
    ),
    "mixtures in the measurement": (
        "leak-answer",
        LEAK.format(clip=".clamp(0, 1)", of_classes=QUOTIENTS, many="MANY"),
        {"leak-tests"},
        "linear: these are the plain quotients; use unmix",
    ),
    "not clipped": (
        "leak-answer",
        LEAK.format(clip="", of_classes=UNMIXED, many="MANY"),
        {"leak-tests"},
        "the candidates are not clipped to [0, 1]",
    ),
    "one step for many": (
        "leak-answer",
        LEAK.format(clip=".clamp(0, 1)", of_classes=UNMIXED, many="1"),
        {"leak-tests"},
        "the clients took one step, not MANY",
    ),
    "a norm for each tensor": (
        "defend-answer",
        DEFEND
        + """    sent = {}
    for name, tensor in update.items():
        sent[name] = tensor * min(1.0, clip / float(tensor.norm())) + z * clip * noise[name]
    return sent
""",
        {"defend-tests"},
        "by hand (0.6, 0.8)",
    ),
    "noise without the bound": (
        "defend-answer",
        DEFEND
        + """    norm = float(sum(tensor.square().sum() for tensor in update.values())) ** 0.5
    factor = min(1.0, clip / norm)
    return {name: factor * tensor + z * noise[name] for name, tensor in update.items()}
""",
        {"defend-tests"},
        "the noise's size is z S: the S is missing",
    ),
    "short updates made longer": (
        "defend-answer",
        DEFEND
        + """    norm = float(sum(tensor.square().sum() for tensor in update.values())) ** 0.5
    return {name: clip / norm * tensor + z * clip * noise[name] for name, tensor in update.items()}
""",
        {"defend-tests"},
        "(3, 4) stays",
    ),
}
