"""The engine on κ alone: rank, null fields, formulas, discrete maps, special points; and proofs that can fail."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import sympy
from sympy import Interval, Matrix, S, Symbol, cos, exp, log, sin, sqrt, symbols

import identkit as ik
from identkit.model.functions import sigmoid
from identkit.symbolic.discrete import discrete_maps, keeps
from identkit.symbolic.fibre_claims import NullField, ReadOff
from identkit.symbolic.fibre_proof import FibreProof
from identkit.symbolic.fields import is_null, null_fields
from identkit.symbolic.fractions import annihilated, rational_zero
from identkit.symbolic.linear import nullspace, rational
from identkit.symbolic.modular import PRIMES, Evaluator, Unsupported
from identkit.symbolic.parameters import check_fibre, kind_of
from identkit.symbolic.polynomials import Ring
from identkit.symbolic.problem import Problem
from identkit.symbolic.rank import generic_rank
from identkit.symbolic.recovery import Recovery
from identkit.symbolic.solver import solve
from identkit.symbolic.special import solve_at
from identkit.verdict import Level

POSITIVE = Interval.open(0, S.Infinity)


def problem(unknowns, summary, constraints=(), **domains):
    table = {u: domains.get(u.name, POSITIVE if u.is_positive else S.Reals) for u in unknowns}
    return Problem(tuple(unknowns), table, tuple(summary), constraints=tuple(constraints))


def factor_analysis(items, factors):
    loadings = [[Symbol(f"l[{i},{k}]", real=True) for k in range(factors)] for i in range(items)]
    noise = [Symbol(f"p[{i}]", positive=True) for i in range(items)]
    cells = [
        sum(a * b for a, b in zip(loadings[i], loadings[j], strict=True)) + (noise[i] if i == j else 0)
        for i in range(items)
        for j in range(i + 1)
    ]
    return problem([entry for row in loadings for entry in row] + noise, cells)


def one_parameter_guessing():
    theta, b, c = symbols("th1:7", real=True), symbols("b1:6", real=True), symbols("c1:6", real=True)
    cells = [(exp(t) + g * exp(d)) / (exp(t) + exp(d)) for t in theta for d, g in zip(b, c, strict=True)]
    return problem(theta + b + c, cells)


def rasch(persons=5, items=4):
    theta, b = symbols(f"t1:{persons + 1}", real=True), symbols(f"b1:{items + 1}", real=True)
    return problem(theta + b, [sigmoid(t - d) for t in theta for d in b])


def errors_in_variables():
    mu, alpha, beta = symbols("mu alpha beta", real=True)
    tau, delta, epsilon = symbols("tau delta epsilon", positive=True)
    cells = [mu, alpha + beta * mu, tau + delta, beta * tau, beta**2 * tau + epsilon]
    return problem((mu, alpha, beta, tau, delta, epsilon), cells)


def cycle():
    edges, noise = symbols("a b c", real=True), symbols("w1:4", positive=True)
    path = Matrix([[0, edges[0], 0], [0, 0, edges[1]], [edges[2], 0, 0]])
    total = (sympy.eye(3) - path).inv()
    sigma = (total.T * sympy.diag(*noise) * total).applyfunc(sympy.cancel)
    return problem(edges + noise, [sigma[i, j] for i in range(3) for j in range(i + 1)])


# n / r / d of known_answers.md
RANKS = {
    "A1 factor analysis 5, 2": (factor_analysis(5, 2), 15, 14, 1),
    "A6 one factor, three indicators": (factor_analysis(3, 1), 6, 6, 0),
    "E1 Rasch": (rasch(), 9, 8, 1),
    "E4 1PL-G": (one_parameter_guessing(), 16, 14, 2),
    "D11 errors in variables": (errors_in_variables(), 6, 5, 1),
    "D6 directed three-cycle": (cycle(), 6, 6, 0),
    "the trap of sin^2 + cos^2": (
        problem(
            [Symbol("x", real=True)], [sin(Symbol("x", real=True)) ** 2 + cos(Symbol("x", real=True)) ** 2]
        ),
        1,
        0,
        1,
    ),
}


@pytest.mark.parametrize("name", RANKS)
def test_rank_is_the_known_one(name):
    given, n, rank, deficiency = RANKS[name]
    report = generic_rank(given)
    assert (len(given.unknowns), report.rank, report.deficiency) == (n, rank, deficiency)
    assert report.error < 1e-12


@pytest.mark.parametrize("name", [name for name, entry in RANKS.items() if entry[3] and "sin" not in name])
def test_null_fields_span_the_fibre_and_annihilate_kappa(name):
    given, _, _, deficiency = RANKS[name]
    report = generic_rank(given)
    fields = null_fields(given, deficiency, report.free)
    assert len(fields) == deficiency
    point = {u: sympy.Rational(random.Random(i).randint(1, 50), 7) for i, u in enumerate(given.unknowns)}
    rows = []
    for move in fields:
        assert set(move) <= set(report.free)
        for entry in given.summary:
            along = sum(e * entry.diff(u) for u, e in move.items())
            assert abs(sympy.N(along.subs(point), 30)) < 1e-20 if along != 0 else True  # pyright: ignore[reportAttributeAccessIssue]
        rows.append([sympy.N(move.get(u, S.Zero).subs(point), 30) for u in given.unknowns])
    # Independent at a generic point: f·X counts once.
    assert Matrix(rows).rank(iszerofunc=lambda e: abs(e) < 1e-15) == deficiency


def test_modular_jacobian_is_the_derivative():
    x, y = symbols("x y", real=True)
    s = Symbol("s", positive=True)
    entries = [x**3 * y / (1 + y**2), sqrt(s) * x, s**2 - x * y]
    evaluator = Evaluator(entries, (x, y, s))
    point = evaluator.draw(random.Random(3))
    values, jacobian = evaluator.at(point)
    p = PRIMES[0]
    for row, entry in zip(jacobian, entries, strict=True):
        for column, unknown in enumerate((x, y, s)):
            slope, _ = (
                Evaluator([entry.diff(unknown)], (x, y, s)).at({**point, **{k: v for k, v in point.items()}})
                if not entry.has(sqrt(s))
                else (None, None)
            )
            if slope is not None:
                assert row[column] == slope[0] % p
    # d(sqrt(s) x)/ds = x/(2 sqrt(s)): twice its product with s is sqrt(s) x itself.
    assert 2 * jacobian[1][2] * point[s].value % p == values[1]


def test_pi_has_no_image_in_a_prime_field():
    x = Symbol("x", real=True)
    with pytest.raises(Unsupported, match="pi"):
        Evaluator([sympy.pi * x], (x,)).at(Evaluator([sympy.pi * x], (x,)).draw(random.Random(0)))


@pytest.mark.parametrize(("numerator", "denominator"), [(1, 6), (-7, 3), (0, 1), (12345, 678)])
def test_rational_reconstruction(numerator, denominator):
    p = PRIMES[0]
    assert rational(numerator * pow(denominator, -1, p) % p, p) == sympy.Rational(numerator, denominator)


def test_nullspace_vectors_are_null_and_complete():
    chance = random.Random(0)
    rows = [[chance.randrange(1000) for _ in range(6)] for _ in range(3)]
    rows.append([a + b for a, b in zip(rows[0], rows[1], strict=True)])
    basis = nullspace(rows, 6, PRIMES[0])
    assert len(basis) == 3
    assert all(
        sum(a * b for a, b in zip(row, v, strict=True)) % PRIMES[0] == 0 for row in rows for v in basis
    )


FORMULAS = [
    (
        "AR(1) plus noise",
        lambda phi, q, r: [q / (1 - phi**2) + r, q * phi / (1 - phi**2), q * phi**2 / (1 - phi**2)],
    ),
    ("beta-binomial, two trials", lambda a, b, _: [a / (a + b), a * (a + 1) / ((a + b) * (a + b + 1)), _]),
    ("zero-inflated Poisson", lambda w, lam, _: [(1 - w) * exp(-lam) * lam, (1 - w) * exp(-lam) * lam**2, _]),
]


@pytest.mark.parametrize(("name", "summary"), FORMULAS, ids=[name for name, _ in FORMULAS])
def test_formulas_give_the_unknowns_back(name, summary):
    unknowns = symbols("u v w", positive=True)
    given = problem(unknowns, summary(*unknowns))
    recovery = Recovery(given)
    targets = unknowns[:1] if "beta" not in name and "AR" not in name else unknowns[:2]
    for target in targets if "zero" not in name else unknowns[1:2]:
        found = recovery.find(target)
        assert found is not None
        point = dict(
            zip(unknowns, (sympy.Rational(2, 7), sympy.Rational(5, 3), sympy.Rational(9, 4)), strict=True)
        )
        value = found.formula.subs({s: e.subs(point) for s, e in found.outer.items()}).subs(point)
        assert sympy.N(value - point[target], 40) == pytest.approx(0, abs=1e-30)


def test_no_formula_where_two_values_fit():
    theta, s = Symbol("theta", real=True), Symbol("s", positive=True)
    recovery = Recovery(problem((theta, s), (s * (1 + theta**2), s * theta)))
    assert recovery.find(theta) is None


MAPS = [
    ("sign of a factor", factor_analysis(3, 1), "sign flip"),
    (
        "MA(1)",
        problem(
            (Symbol("t", real=True), Symbol("s", positive=True)),
            [
                Symbol("s", positive=True) * (1 + Symbol("t", real=True) ** 2),
                Symbol("s", positive=True) * Symbol("t", real=True),
            ],
        ),
        "other",
    ),
]


@pytest.mark.parametrize(("name", "given", "kind"), MAPS, ids=[m[0] for m in MAPS])
def test_discrete_maps_keep_kappa(name, given, kind):
    (found, *_) = discrete_maps(given, given.unknowns)
    assert found[0] == kind
    assert keeps(found[1], given)
    point = {u: sympy.Rational(i + 2, 5) for i, u in enumerate(given.unknowns)}
    moved = {**point, **{u: e.subs(point) for u, e in found[1].items()}}
    assert moved != point
    assert all(sympy.simplify(e.subs(point) - e.subs(moved)) == 0 for e in given.summary)


def levels(outcome):
    return {u.name: level for u, level in outcome.levels.items()}


def test_levels_of_generic_fibres():
    found = solve(errors_in_variables())
    assert levels(found) == {"mu": Level.GLOBAL} | dict.fromkeys(
        ("alpha", "beta", "tau", "delta", "epsilon"), Level.PARTIAL
    )
    three = solve(cycle())
    assert set(levels(three).values()) == {Level.LOCAL}
    assert three.maps or three.at_least


def test_a_positive_domain_turns_a_sign_flip_into_one_value():
    loadings, noise = symbols("l1:4", positive=True), symbols("p1:4", positive=True)
    cells = [loadings[i] * loadings[j] + (noise[i] if i == j else 0) for i in range(3) for j in range(i + 1)]
    assert set(levels(solve(problem(loadings + noise, cells))).values()) == {Level.GLOBAL}


def test_definite_jacobian_proves_what_no_formula_does():
    z1, z2 = symbols("z1 z2", real=True)
    found = solve(problem((z1, z2), (z1 + z1**3 + z2, z2 + z2**3 - z1)))
    assert found.convex is not None
    assert set(levels(found).values()) == {Level.GLOBAL}
    # The same with the sign of one coupling turned is no longer definite, and nothing is claimed.
    other = solve(problem((z1, z2), (z1**3 - z1 + z2, z2 + z2**3 - z1)))
    assert other.convex is None
    assert Level.GLOBAL not in levels(other).values()


def test_kinks_have_no_generic_rank():
    x = Symbol("x", real=True)
    assert levels(solve(problem((x,), (abs(x),)))) == {"x": Level.UNKNOWN}


def test_special_points_are_not_judged_by_rank():
    theta, s = Symbol("theta", real=True), Symbol("s", positive=True)
    for entry, level in ((theta**3, Level.GLOBAL), (theta**2, Level.GLOBAL)):
        cubic = problem((theta,), (entry,))
        assert levels(solve_at(cubic, {theta: S.Zero}, solve(cubic)))["theta"] is level
    moving_average = problem((theta, s), (s * (1 + theta**2), s * theta))
    rest = problem((s,), (2 * s, s))
    here = solve_at(moving_average, {theta: S.One}, solve(moving_average), rest)
    assert levels(here) == {"theta": Level.GLOBAL, "s": Level.GLOBAL}


def test_errors_in_variables_at_slope_zero():
    given = errors_in_variables()
    beta = given.unknowns[2]
    rest = tuple(u for u in given.unknowns if u != beta)
    sliced = problem(rest, [e.subs(beta, 0) for e in given.summary if e.subs(beta, 0) != 0])
    here = solve_at(given, {beta: S.Zero}, solve(given), sliced)
    free = {"tau", "delta"}
    assert {name for name, level in levels(here).items() if level is Level.PARTIAL} == free
    assert {level for name, level in levels(here).items() if name not in free} == {Level.GLOBAL}


def test_exact_zero_tests_agree():
    x, y = symbols("x y")
    for expression in ((x + y) ** 3 / (x + y) - x**2 - 2 * x * y - y**2, 1 / x - 1 / y + (x - y) / (x * y)):
        assert rational_zero(expression) is True
        assert Ring([x, y]).is_zero(expression)
    assert rational_zero(x - y) is False
    assert rational_zero(log(x)) is None
    assert annihilated(x * y, {x: x, y: -y}) is True
    assert annihilated(x * y, {x: x, y: y}) is False
    assert not is_null({x: x, y: y}, [x * y])


@pytest.mark.parametrize(
    ("move", "kind"),
    [
        ({"a": "1", "b": "-2"}, "translation"),
        ({"a": "a", "b": "-2*b"}, "scaling"),
        ({"a": "b", "b": "-a"}, "rotation"),
        ({"a": "b"}, "shear"),
        ({"a": "a*b", "b": "b**2"}, "other"),
    ],
)
def test_fields_are_named(move, kind):
    table = {name: Symbol(name) for name in "ab"}
    assert kind_of({table[u]: sympy.sympify(e, locals=table) for u, e in move.items()}) == kind


# Proofs


def proof_of(text, about="parameters", **point):
    verdict = check_fibre(ik.parse(text), about, point or None)
    assert isinstance(verdict.certificate, FibreProof)
    return verdict.certificate


FACTOR = "z ~ Normal(0, t); observe x[2] ~ Normal(w*z, s)"


def test_a_proof_holds_and_a_doctored_one_does_not():
    proof = proof_of(FACTOR)
    assert proof.verify()
    (move,) = [c for c in proof.claims if isinstance(c, NullField)]
    symbol = next(iter(move.components))
    wrong = replace(move, components={**move.components, symbol: 2 * move.components[symbol]})
    assert not replace(proof, claims=(wrong,)).verify()
    (formula,) = [c for c in proof.claims if isinstance(c, ReadOff)]
    assert not replace(proof, claims=(replace(formula, formula=formula.formula + 1),)).verify()
    assert not replace(proof, levels={**proof.levels, "t": Level.GLOBAL}).verify()
    assert not replace(proof, claims=()).verify()


def test_a_proof_of_one_value_is_none_of_finitely_many():
    proof = check_fibre(
        ik.parse("parameter a; parameter b; observe x[2] ~ Normal([a, a + b], 1)"), "parameters"
    ).certificate
    assert isinstance(proof, FibreProof) and proof.verify()
    for level in (Level.CONSTANT, Level.PARTIAL, Level.LOCAL):
        assert not replace(proof, levels={**proof.levels, "b": level}).verify()
    assert not replace(
        proof, model=ik.parse("parameter c; parameter b; observe x[2] ~ Normal([c, c + b], 1)")
    ).verify()


def test_an_unknown_that_cancels_is_not_seen():
    a, b, c = symbols("a b c", real=True)
    found = solve(problem([a, b, c], [sin(a) ** 2 + cos(a) ** 2 + b * c, a**2 - (a + b) ** 2 + 2 * a * b]))
    assert found.levels == {a: Level.CONSTANT, b: Level.LOCAL, c: Level.LOCAL}


def test_a_formula_must_not_lean_on_what_is_not_known():
    proof = proof_of(FACTOR)
    (formula,) = [c for c in proof.claims if isinstance(c, ReadOff)]
    w = next(u for u in proof.model.parameters if u.name == "w")
    leaning = replace(formula, needs=(w,))
    assert not replace(
        proof, claims=(leaning,), levels=dict.fromkeys(proof.levels, Level.UNKNOWN) | {"s": Level.GLOBAL}
    ).verify()


def test_label_switching_is_local_and_a_fixed_component_is_not():
    swap = check_fibre(
        ik.parse("parameter p in (0, 1); observe y ~ Mixture([p, 1-p], Poisson(exp(a)), Poisson(exp(b)))"),
        "parameters",
    )
    assert set(swap.parameters.values()) == {Level.LOCAL}
    assert swap.at_least == ()
    fixed = check_fibre(
        ik.parse("parameter p in (0, 1); observe y ~ Mixture([p, 1-p], Normal(0, 1), Normal(m, 1))"),
        "parameters",
    )
    assert set(fixed.parameters.values()) == {Level.GLOBAL}


def test_the_prior_identifies_what_the_likelihood_does_not():
    verdict = ik.check("alpha ~ Normal(0, 1); observe y ~ Normal(mu + alpha, s)", about="joint")
    assert verdict.level is Level.PARTIAL
    assert verdict.prior_identified == ("alpha", "mu")
    assert [i.preserves_prior for i in verdict.invariances] == [False]


def test_rotations_of_standard_normal_factors_survive_the_prior():
    text = "z[2] ~ Normal(0, 1); observe x[2] ~ Normal(W @ z, 1)\n"
    verdict = ik.check(f"parameter W[2, 2]\n{text}", about="joint")
    assert verdict.level is Level.PARTIAL
    assert verdict.prior_identified == ()  # the rotation moves everything and keeps the prior


WHOLE = [
    # 10 n + m tells both; a derivative would let them flow
    "parameter n in 1..9; parameter m in 0..9; observe x ~ Normal(10*n + m, 1)",
    # nine values of m, no continuum
    "parameter n in 1..9; observe x ~ Normal(n + m, 1)",
    # 1 and 2 give one law, no others do
    "parameter n in 1..9; observe x ~ Normal(n^2 - 3*n, 1)",
    "parameter n in 1..2; observe x ~ Normal(m^2 + (n - 1)*(n - 2)*m, 1)",
]


@pytest.mark.parametrize("text", WHOLE)
def test_whole_numbers_do_not_flow(text):
    levels = set(ik.check(ik.parse(text), about="parameters").parameters.values())
    assert levels == {Level.UNKNOWN}


def test_a_count_that_may_be_zero_is_not_divided_by():
    text = "k ~ Poisson(1); z ~ Normal(0, 1); observe x ~ Normal(k*z, 1); observe y ~ Normal(k, 1)"
    verdict = ik.check(ik.parse(text), about="joint")
    assert verdict.latents["z"] is Level.UNKNOWN


def test_a_map_that_moves_nothing_where_the_constraints_hold_is_no_second_solution():
    one = "parameter a > 0; parameter b > 0; constraint a = b; observe x ~ Normal(a*b, 1)"
    verdict = ik.check(ik.parse(one), about="parameters")
    assert verdict.at_least == ("a", "b") and not verdict.invariances
    line = problem(
        symbols("a b", positive=True), [S.One], [Symbol("a", positive=True) - Symbol("b", positive=True)]
    )
    assert discrete_maps(line, line.unknowns) == []
    two = "constraint a + b = 1; observe x ~ Normal(a*b, 1)"
    verdict = ik.check(ik.parse(two), about="parameters")
    assert verdict.level is Level.LOCAL and verdict.at_least == ()


@pytest.mark.parametrize("point", [-1, 0, 1, 2])
def test_an_entry_that_is_no_polynomial_is_no_traceback(point):
    verdict = ik.check(ik.parse("observe x ~ Normal(a*exp(-a), 1)"), about="parameters", at={"a": point})
    assert verdict.level in (Level.GLOBAL if point < 2 else Level.LOCAL, Level.UNKNOWN)


@pytest.mark.parametrize("at", [None, {"a": 1, "b": 1}])
@pytest.mark.parametrize("mean", ["[(a - 1)*sqrt(b + 1), b]", "[(a - 1)*sqrt(b), a*sqrt(b*a + 1)]"])
def test_factors_under_roots_are_no_traceback(mean, at):
    verdict = ik.check(ik.parse(f"parameter a > 0; parameter b > 0; observe x[2] ~ Normal({mean}, 1)"), at=at)
    assert verdict.parameters["a"] in (Level.GLOBAL, Level.UNKNOWN, Level.LOCAL)


def test_a_constraint_that_makes_an_unknown_zero_is_no_traceback():
    verdict = ik.check(ik.parse("constraint a*b = 0; observe x ~ Normal(a, 1)"), about="parameters")
    assert verdict.parameters["a"] in (Level.GLOBAL, Level.UNKNOWN)
    assert verdict.parameters["b"] in (Level.PARTIAL, Level.UNKNOWN)


def test_a_latent_may_be_part_of_the_point():
    text = "z ~ Normal(0, 1); observe x ~ Normal(w*z, 1); observe y ~ Normal(z, 1)"
    verdict = ik.check(ik.parse(text), about="joint", at={"z": 0})
    assert verdict.latents["z"] in (Level.GLOBAL, Level.UNKNOWN)
    assert verdict.parameters["w"] in (Level.PARTIAL, Level.UNKNOWN)


def test_a_ratio_pins_nothing_where_its_denominator_is_zero():
    # a^3 b / (a^2 b) = a, but at a = 0 the law is that of b = 0, whatever a.
    model = ik.parse("observe x ~ Normal(a^2*b, 1); observe y ~ Normal(a^3*b, 1)")
    verdict = ik.check(model, about="parameters", at={"a": 0})
    assert verdict.parameters["a"] in (Level.PARTIAL, Level.UNKNOWN)
    assert ik.check(model, about="parameters", at={"a": 1}).parameters["a"] is Level.GLOBAL
