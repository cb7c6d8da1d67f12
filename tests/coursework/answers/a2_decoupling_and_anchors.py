"""Wrong answers to assignment A2, each with the cells that lose points and words that the comment must hold."""

WRONG = {
    "a part needs a dot": (
        "task1-answer",
        """# Task 1, answer: split_state
def split_state(state, parts):
    for part in parts:
        if not any(name.startswith(part) for name in state):
            raise ValueError(f"no tensor belongs to the part {part!r}")
    prefixes = tuple(part + "." for part in parts)
    travels = {name: t for name, t in state.items() if name.startswith(prefixes)}
    stays = {name: t for name, t in state.items() if not name.startswith(prefixes)}
    return travels, stays
""",
        {"task1-tests"},
        "a name without a dot is a part by itself",
    ),
    "prefixes without dots": (
        "task1-answer",
        """# Task 1, answer: split_state
def split_state(state, parts):
    for part in parts:
        if not any(name.startswith(part) for name in state):
            raise ValueError(f"no tensor belongs to the part {part!r}")
    travels = {name: t for name, t in state.items() if name.startswith(parts)}
    stays = {name: t for name, t in state.items() if not name.startswith(parts)}
    return travels, stays
""",
        {"task1-tests"},
        "classifier2.bias starts with classifier, but belongs to another part",
    ),
    "an unknown part is ignored": (
        "task1-answer",
        """# Task 1, answer: split_state
def split_state(state, parts):
    travels = {name: t for name, t in state.items() if name.split(".")[0] in parts}
    stays = {name: t for name, t in state.items() if name not in travels}
    return travels, stays
""",
        {"task1-tests"},
        "no tensor belongs to the part 'clasifier': raise a ValueError",
    ),
    "typing errors sought by their beginnings": (
        "task1-answer",
        """# Task 1, answer: split_state
def split_state(state, parts):
    for part in parts:
        if not any(name.startswith(part) for name in state):
            raise ValueError(f"no tensor belongs to the part {part!r}")
    travels = {name: t for name, t in state.items() if name.split(".")[0] in parts}
    stays = {name: t for name, t in state.items() if name not in travels}
    return travels, stays
""",
        {"task1-tests"},
        "no tensor belongs to the part 'class': raise a ValueError",
    ),
    "gradients of the sum": (
        "task2a-answer",
        """# Task 2a, answer: gradients
def gradients(weights, x, y):
    copies = {name: t.clone().requires_grad_() for name, t in weights.items()}
    z = x @ copies["extractor.weight"].T
    logits = z @ copies["classifier.weight"].T + copies["classifier.bias"]
    loss = torch.nn.functional.cross_entropy(logits, y, reduction="sum")
    return dict(zip(copies, torch.autograd.grad(loss, list(copies.values()))))
""",
        {"task2a-tests"},
        "classifier.bias: for the two images by hand [-0.75, 0.75], yours [-1.5, 1.5]",
    ),
    "divided by B twice": (
        "task2a-answer",
        """# Task 2a, answer: gradients
def gradients(weights, x, y):
    phi = weights["classifier.weight"]
    z = x @ weights["extractor.weight"].T
    logits = z @ phi.T + weights["classifier.bias"]
    g = (logits.softmax(1) - torch.nn.functional.one_hot(y, len(phi))) / len(y)
    return {
        "extractor.weight": (g @ phi).T @ x,
        "classifier.weight": g.T @ z / len(y),
        "classifier.bias": g.sum(0),
    }
""",
        {"task2a-tests"},
        "0.25 times as much",
    ),
    "extractor first": (
        "task2b-answer",
        """# Task 2b, answer: decoupled_step
def decoupled_step(weights, x, y, steps, lr, decay):
    new = dict(weights)
    slope = gradients(new, x, y)["extractor.weight"]
    new["extractor.weight"] = new["extractor.weight"] * (1 - lr * decay) - lr * slope
    for _ in range(steps):
        slope = gradients(new, x, y)
        for name in ("classifier.weight", "classifier.bias"):
            new[name] = new[name] - lr * (slope[name] + decay * new[name])
    return new
""",
        {"task2b-tests"},
        "it has to learn behind the NEW classifier",
    ),
    "the same gradient in every step": (
        "task2b-answer",
        """# Task 2b, answer: decoupled_step
def decoupled_step(weights, x, y, steps, lr, decay):
    new = dict(weights)
    slope = gradients(new, x, y)
    for _ in range(steps):
        for name in ("classifier.weight", "classifier.bias"):
            new[name] = new[name] - lr * (slope[name] + decay * new[name])
    slope = gradients(new, x, y)["extractor.weight"]
    new["extractor.weight"] = new["extractor.weight"] * (1 - lr * decay) - lr * slope
    return new
""",
        {"task2b-tests"},
        "the same gradients twice: take them anew for each step",
    ),
    "as many steps of the extractor": (
        "task2b-answer",
        """# Task 2b, answer: decoupled_step
def decoupled_step(weights, x, y, steps, lr, decay):
    new = dict(weights)
    for part in ("classifier", "extractor"):
        for _ in range(steps):
            slope = gradients(new, x, y)
            for name in weights:
                if name.startswith(part):
                    new[name] = new[name] - lr * (slope[name] + decay * new[name])
    return new
""",
        {"task2b-tests"},
        "the extractor takes two steps; it takes ONE",
    ),
    "what stands still decays": (
        "task2b-answer",
        """# Task 2b, answer: decoupled_step
def decoupled_step(weights, x, y, steps, lr, decay):
    new = dict(weights)
    parts = ["classifier"] * steps + ["extractor"]
    for part in parts:
        slope = gradients(new, x, y)
        for name in weights:
            moves = float(name.startswith(part))
            new[name] = new[name] - lr * (moves * slope[name] + decay * new[name])
    return new
""",
        {"task2b-tests"},
        "what stands still must not decay",
    ),
    "the course's clamp": (
        "task3-answer",
        """# Task 3, answer: weighted_anchors
def weighted_anchors(z, y, w, classes):
    one_hot = torch.nn.functional.one_hot(y, classes).to(z.dtype) * w[:, None]
    mass = one_hot.sum(0)
    means = one_hot.T @ z / mass.clamp(min=1)[:, None]
    return {"anchors.means": means, "anchors.held": mass > 0}
""",
        {"task3-tests"},
        "class 2 has mass 0.5: divide by it, not by 1",
    ),
    "held by label": (
        "task3-answer",
        """# Task 3, answer: weighted_anchors
def weighted_anchors(z, y, w, classes):
    means = torch.zeros(classes, z.shape[1])
    for c in range(classes):
        mine = y == c
        if w[mine].sum() > 0:
            means[c] = (w[mine, None] * z[mine]).sum(0) / w[mine].sum()
    return {"anchors.means": means, "anchors.held": torch.bincount(y, minlength=classes) > 0}
""",
        {"task3-tests"},
        "class 1's image weighs 0: ask for the mass, not for the labels",
    ),
    "held by means": (
        "task3-answer",
        """# Task 3, answer: weighted_anchors
def weighted_anchors(z, y, w, classes):
    one_hot = torch.nn.functional.one_hot(y, classes).to(z.dtype) * w[:, None]
    mass = one_hot.sum(0)
    means = one_hot.T @ z / torch.where(mass > 0, mass, 1.0)[:, None]
    return {"anchors.means": means, "anchors.held": (means != 0).any(1)}
""",
        {"task3-tests"},
        "class 3's anchor is (0, 0): ask for the mass, not for the means",
    ),
    "the library's class means": (
        "task3-answer",
        """# Task 3, answer: weighted_anchors
from fedecouple_lite.losses import class_means


def weighted_anchors(z, y, w, classes):
    means, mass = class_means(z, y, classes, w)
    return {"anchors.means": means, "anchors.held": mass > 0}
""",
        {"task3-tests"},
        "class_means must not be called here",
    ),
    "everybody is pulled": (
        "task4-answer",
        """# Task 4, answer: pull
def pull(z, y, means, held, slack):
    moving = z.clone().requires_grad_()
    omega = ((moving - means[y]).square().mean(1) - slack).clamp(min=0)
    loss = omega.mean()
    return {"loss": loss, "gradient": torch.autograd.grad(loss, moving)[0]}
""",
        {"task4-tests"},
        "the second image has no anchor: its gradient is 0 and it does not count",
    ),
    "a half on the edge": (
        "task4-answer",
        """# Task 4, answer: pull
def pull(z, y, means, held, slack):
    moving = z.clone().requires_grad_()
    excess = (moving - means[y]).square().mean(1) - slack
    omega = torch.maximum(excess, torch.zeros(1)) * held[y]
    loss = omega.sum() / held[y].sum().clamp(min=1)
    return {"loss": loss, "gradient": torch.autograd.grad(loss, moving)[0]}
""",
        {"task4-tests"},
        "relu gives that, torch.maximum not",
    ),
    "divided by the batch": (
        "task4-answer",
        """# Task 4, answer: pull
def pull(z, y, means, held, slack):
    moving = z.clone().requires_grad_()
    omega = torch.relu((moving - means[y]).square().mean(1) - slack)
    loss = (omega * held[y]).mean()
    return {"loss": loss, "gradient": torch.autograd.grad(loss, moving)[0]}
""",
        {"task4-tests"},
        "loss: by hand (5/2 + 0 + 0) / 3 = 0.8333, yours 0.6250",
    ),
    "nobody has an anchor": (
        "task4-answer",
        """# Task 4, answer: pull
def pull(z, y, means, held, slack):
    moving = z.clone().requires_grad_()
    omega = ((moving - means[y]).square().mean(1) - slack).clamp(min=0)
    loss = (omega * held[y]).sum() / held[y].sum()
    return {"loss": loss, "gradient": torch.autograd.grad(loss, moving)[0]}
""",
        {"task4-tests"},
        "no sample has an anchor: you get 0 / 0",
    ),
    "a wrong prediction": (
        "task5-answer",
        """# Task 5, answer: guess
guess = None  # your answer: "A", "B" or "C"
guess = next(letter for letter, words in options5.items() if words == RESTRAINTS[0])
""",
        {"task5-tests"},
        "the run says otherwise",
    ),
    "measured in the server's extractor": (
        "task6a-answer",
        """# Task 6a, answer: silhouettes
MUS, EPOCHS = (0.0, 1.0), (1, 3, 10)
silhouettes = np.full((2, 3, 2), np.nan)  # of MUS, EPOCHS and SEEDS
for m, mu in enumerate(MUS):
    for e, epochs in enumerate(EPOCHS):
        for s, seed in enumerate(SEEDS):
            method = make("fedecouple", lr=lr, mu=mu, epochs=epochs)
            go_on = {"rounds": 5, "seed": seed, "state": learned(seed)}
            state = next(rounds(method, net, federations[seed], **go_on))
            space = feature_space(net, state, federations[seed], whose="server")
            silhouettes[m, e, s] = space_scores(space)["silhouette"]
""",
        {"task6a-tests"},
        "this is the score in the server's extractor, not in the clients' own",
    ),
    "one seed for both": (
        "task6a-answer",
        """# Task 6a, answer: silhouettes
MUS, EPOCHS = (0.0, 1.0), (1, 3, 10)
silhouettes = np.full((2, 3, 2), np.nan)  # of MUS, EPOCHS and SEEDS
for m, mu in enumerate(MUS):
    for e, epochs in enumerate(EPOCHS):
        for s in range(len(SEEDS)):
            seed = SEEDS[1]
            method = make("fedecouple", lr=lr, mu=mu, epochs=epochs)
            go_on = {"rounds": 5, "seed": seed, "state": learned(seed)}
            state = next(rounds(method, net, federations[seed], **go_on))
            space = feature_space(net, state, federations[seed])
            silhouettes[m, e, s] = space_scores(space)["silhouette"]
""",
        {"task6a-tests"},
        "and ask that seed's federation",
    ),
    "a claim that the numbers do not carry": (
        "task6c-answer",
        """# Task 6c, answer: claim
claim = None  # your answer: "A", "B" or "C"
with_one, _, with_ten = (silhouettes[1] - silhouettes[0]).mean(1)
not_so = GROWTHS[0 if with_ten >= 1.25 * with_one else 2]
claim = next(letter for letter, words in options6.items() if words == not_so)
""",
        {"task6c-tests"},
        "by your own numbers the gain is",
    ),
}
