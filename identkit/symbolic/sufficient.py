"""Where an integral is missing: quantities that are enough to fix the law, though the law may not fix them.

An observation's argument such as ``sigmoid(a·z − b)`` sees normal latents through affine forms η only. The
joint law of all these forms, a mean and a covariance, together with what else the arguments contain, fixes
the law of the data. So parameters that leave *these* alone are not identifiable; nothing follows if they
change.
"""

from __future__ import annotations

from collections.abc import Collection

import sympy
from sympy import Dummy, Expr, Symbol

from identkit.model.noise_free import Exactly
from identkit.model.statement import Statement
from identkit.symbolic.blocks import Block
from identkit.symbolic.gaussian import affine, mean_and_noise, propagate


def sufficient(block: Block) -> tuple[Expr, ...]:
    """Expressions of the parameters that, equal for two of them, make the law of the block equal.

    >>> import identkit as ik
    >>> from identkit.symbolic.blocks import blocks
    >>> m = ik.parse("z ~ Normal(m, s); observe y ~ Bernoulli(sigmoid(a*z - b))")
    >>> sufficient(blocks(m)[0])
    (a*m - b, a**2*s**2)
    """
    normal, others = _normal_latents(block)
    inside = {symbol for statement in normal for symbol in statement.symbols}
    latents = set(block.symbols)
    forms: dict[Expr, None] = {}
    free: dict[Expr, None] = {}
    for statement in [*others, *block.observations]:
        for _, expression, _ in statement.family.expressions():
            _walk(expression, inside, latents, forms, free)
    names = {form: Dummy(f"form {position}") for position, form in enumerate(forms)}
    law = propagate([*normal, *[Statement((name,), Exactly(form)) for form, name in names.items()]])
    assert law is not None, "normal latents and affine forms of them are linear-Gaussian"
    means, covariances = law.of(list(names.values()))
    return tuple(dict.fromkeys(e for e in (*free, *means, *covariances) if e.free_symbols))


def _normal_latents(block: Block) -> tuple[list[Statement], list[Statement]]:
    """The latents that are linear-Gaussian in earlier ones of this kind, and the others."""
    normal: list[Statement] = []
    others: list[Statement] = []
    strangers: set[Symbol] = set()
    for statement in block.latents:
        normally = mean_and_noise(statement.family) is not None
        alone = not statement.family.free_symbols & strangers
        if normally and alone and propagate([*normal, statement]) is not None:
            normal.append(statement)
        else:
            others.append(statement)
            strangers |= set(statement.symbols)
    return normal, others


def _walk(
    expression: Expr,
    inside: Collection[Symbol],
    latents: set[Symbol],
    forms: dict[Expr, None],
    free: dict[Expr, None],
) -> None:
    """Collect the largest affine forms of normal latents, and the largest parts without any latent."""
    used = expression.free_symbols & latents
    if not used:
        free[expression] = None
    elif _is_form(expression, inside, latents):
        forms[expression] = None
    elif isinstance(expression, sympy.Add | sympy.Mul):
        # What can be one form, or one part without latents, is kept together.
        together = [term for term in expression.args if not term.free_symbols & latents]
        if isinstance(expression, sympy.Add):
            seeing = [term for term in expression.args if term not in together]
            together += [term for term in seeing if _is_form(term, inside, latents)]
        if together:
            _walk(expression.func(*together), inside, latents, forms, free)
        for term in expression.args:
            if term not in together:
                _walk(term, inside, latents, forms, free)
    else:
        for argument in expression.args:
            _walk(argument, inside, latents, forms, free)


def _is_form(term: Expr, inside: Collection[Symbol], latents: set[Symbol]) -> bool:
    return term.free_symbols & latents <= set(inside) and affine(term, inside) is not None
