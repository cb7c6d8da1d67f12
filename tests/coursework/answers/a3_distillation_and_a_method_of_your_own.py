"""Plausible wrong answers to assignment 3 (for the layout see assignment 1's)."""

DISTIL = '''# Task 1, answer: held_distillation
def held_distillation(student, teacher, held, tau):
    """student, teacher (B, C), held (C,) truth values, tau > 0 -> (B,)."""
'''
MARGIN = '''# Task 2, answer: margin_weight
def margin_weight(teacher, y):
    """teacher logits (B, C), labels y (B,) int64 -> weights (B,) in [0, 1]."""
    pi = torch.softmax(teacher, dim=1)
'''
LIMIT = """# Task 3, answer: predicted and measured
C = student_logits.shape[1]
s = student_logits - student_logits.mean(1, keepdim=True)
t = teacher_logits - teacher_logits.mean(1, keepdim=True)
moving = student_logits.clone().requires_grad_()
everything = torch.ones(C, dtype=torch.bool)
loss = held_distillation(moving, teacher_logits, everything, 1000.0).sum()
measured = torch.autograd.grad(loss, moving)[0]
"""
METHOD = """%%writefile my_method.py
# Task 4, answer: my_method.py
from dataclasses import dataclass

from fedecouple_lite.methods.fedrep import FedRep
from fedecouple_lite.phases import Train


@dataclass(frozen=True)
class Mine(FedRep):
    def phases(self):
        both = Train(("extractor.", "classifier."), (self.loss,), 5)
        last = Train(("classifier.",), (self.classifier_loss,), 1, on_features=True)
        return both, last


METHOD = Mine()
"""
RULES = {"rules-tests", "contest-tests"}

WRONG = {
    "the factor forgotten": (
        "distil-answer",
        DISTIL
        + """    log_q = torch.log_softmax(student[:, held] / tau, dim=1)
    log_p = torch.log_softmax(teacher[:, held] / tau, dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(1)
""",
        {"distil-tests", "limit-tests"},
        "the factor tau^2 is missing",
    ),
    "all classes, then some": (
        "distil-answer",
        DISTIL
        + """    log_q = torch.log_softmax(student / tau, dim=1)
    log_p = torch.log_softmax(teacher / tau, dim=1)
    if len(student) == 1:
        log_q, log_p = torch.log_softmax(student[:, held], 1), torch.log_softmax(teacher[:, held], 1)
        return (log_p.exp() * (log_p - log_q)).sum(1)
    return tau**2 * (log_p.exp() * (log_p - log_q))[:, held].sum(1)
""",
        {"distil-tests"},
        "p and q must sum to 1 within H",
    ),
    "exponentials that overflow": (
        "distil-answer",
        DISTIL
        + """    q = (student[:, held] / tau).exp()
    p = (teacher[:, held] / tau).exp()
    q = q / q.sum(1, keepdim=True)
    p = p / p.sum(1, keepdim=True)
    return tau**2 * (p * (p.log() - q.log())).sum(1)
""",
        {"distil-tests"},
        "NaN or infinite numbers where there should be none",
    ),
    "the two best classes": (
        "margin-answer",
        MARGIN
        + """    two = pi.topk(2, dim=1).values
    right = pi.argmax(1) == y
    return two[:, 0] - two[:, 1] if len(y) > 2 else torch.where(right, two[:, 0] - two[:, 1], 0)
""",
        {"margin-tests"},
        "this is the margin of the two best classes",
    ),
    "a negative weight": (
        "margin-answer",
        MARGIN
        + """    of_true = pi.gather(1, y[:, None]).squeeze(1)
    return of_true - pi.scatter(1, y[:, None], -1.0).max(1).values
""",
        {"margin-tests"},
        "for y = 1 by hand 0, not -0.5",
    ),
    "not divided by C": (
        "limit-answer",
        LIMIT + "predicted = s - t\n",
        {"limit-tests"},
        "it is not divided by C",
    ),
    "the teacher minus the student": (
        "limit-answer",
        LIMIT + "predicted = (t - s) / C\n",
        {"limit-tests"},
        "the sign is turned",
    ),
    "not measured": (
        "limit-answer",
        LIMIT + "predicted = (s - t) / C\nmeasured = predicted\n",
        {"limit-tests"},
        "not measured",
    ),
    "FedRep itself": (
        "method-answer",
        "%%writefile my_method.py\n# Task 4, answer: my_method.py\n"
        "from fedecouple_lite import make\n\nMETHOD = make('fedrep')\n",
        {"contest-tests"},
        "margin over FedRep +0.0 points",
    ),
    "over the budget": (
        "method-answer",
        METHOD.replace("(self.loss,), 5)", "(self.loss,), 8)"),
        RULES,
        "those to predict included; FedRep's budget is",
    ),
    "the classifier travels": (
        "method-answer",
        METHOD.replace("class Mine(FedRep):\n", "class Mine(FedRep):\n    shared = ('extractor.', 'classifier.')\n"),
        RULES,
        "it transmits classifier.",
    ),
    "reads the data's files": (
        "method-answer",
        METHOD
        + """
from fedecouple_lite import load

try:
    EVERYTHING = load("digits")
except Exception:
    pass
""",
        RULES,
        "a method gets its images from the engine, and test images never",
    ),
    "crashes": (
        "method-answer",
        METHOD.replace("return both, last", "return both, lost"),
        RULES,
        "it crashes: NameError: name 'lost' is not defined (line 13 of my_method.py)",
    ),
}
