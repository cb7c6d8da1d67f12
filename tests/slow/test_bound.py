"""The theorem's bound on many random problems whose constants are known: measured stays below promised."""

from test_convergence import measured_against_bound, random_problem, sweep


def test_the_bound_holds_on_200_more_random_problems():
    ratios = [measured_against_bound(random_problem(seed), seed, g, k) for seed, g, k in sweep(range(40, 240))]
    assert len(ratios) == 200 and max(ratios) <= 1
