"""`Model`: the latents, parameters and observations of a generative model, declared in SymPy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sympy
from sympy import Expr, Range, S, Set, Symbol

from identkit.model.elements import assumed, element_names, leaves, shape_of
from identkit.model.families import DOMAIN_WORDS, POSITIVE, Binomial, Family, exact
from identkit.model.noise_free import Exactly
from identkit.model.statement import RELATIONS, Condition, Constraint, Statement, can_hold
from identkit.model.within import surely_in


class Model:
    """A generative model ``p(x | z; θ) p(z)``, declared one statement at a time.

    Python indexes from 0; the names of elements are one-based, as in the text notation and in verdicts.

    >>> from identkit import Normal
    >>> m = Model("two-factor PPCA")
    >>> w = m.parameter("w", shape=2); s = m.parameter("s", positive=True)
    >>> z = m.latent("z", Normal(0, 1), shape=2)
    >>> x = m.observe("x", Normal(w[0]*z[0] + w[1]*z[1], s))
    >>> m.latent_names
    ('z[1]', 'z[2]')
    """

    def __init__(self, name: str = "model") -> None:
        self.name = name
        self.parameters: dict[Symbol, Set] = {}
        self.knowns: dict[Symbol, Set] = {}
        self.latents: list[Statement] = []
        self.observations: list[Statement] = []
        self.constraints: list[Constraint] = []
        self.summaries: list[Expr] = []
        self.definitions: dict[str, Any] = {}
        self.notes: list[str] = []
        self._symbols: dict[str, Symbol] = {}
        self._vectors: dict[str, tuple[int, ...]] = {}

    # Declaring

    def parameter(
        self,
        name: str,
        shape: int | Sequence[int] | None = None,
        *,
        positive: bool = False,
        domain: Set | None = None,
    ) -> Any:
        """Declare a parameter; returns its symbol, or a matrix of symbols for a vector or matrix.

        Args:
            name: a letter or underscore, then letters, digits and underscores; or an element such as "w[2]",
                which adds to the vector w (the same in `latent` and `observe`).
            shape: length of a vector, or (rows, columns) of a matrix; None for a scalar.
            positive: shorthand for the domain (0, ∞).
            domain: a SymPy set of real numbers; default all of them.

        Raises:
            ValueError: if the name is taken or no name, or the domain is empty.
        """
        chosen = POSITIVE if positive else S.Reals if domain is None else domain
        if chosen is S.EmptySet:
            raise ValueError(f"{name}'s domain should not be empty")
        symbols, value = self._new(name, shape, chosen)
        self.parameters.update(dict.fromkeys(symbols, chosen))
        return value

    def latent(self, name: str, family: Family, shape: int | Sequence[int] | None = None) -> Any:
        """Declare a latent ``name ~ family``; with a shape, independent elements of which vector arguments take one each."""
        bounds = family.bounds if isinstance(family, Family) else ()
        if any(bound.free_symbols for bound in bounds):
            raise ValueError(
                f"{name}'s {family.name} should have bounds that are numbers, got {', '.join(map(str, bounds))}; "
                "a latent u ~ Uniform(0, 1) and the definition low + (high - low)*u say the same"
            )
        return self._draw(self.latents, name, family, shape)

    def observe(self, name: str, family: Family, shape: int | Sequence[int] | None = None) -> Any:
        """Declare an observation ``name ~ family``; returns its symbol(s), which no other statement may use."""
        return self._draw(self.observations, name, family, shape)

    def observe_exactly(self, name: str, expression: Any, shape: int | Sequence[int] | None = None) -> Any:
        """Declare a noise-free observation ``name = expression``; a vector or matrix gives one for each entry."""
        family = Exactly(expression)
        value = family.arguments[0]
        if shape is None and isinstance(value, sympy.MatrixBase):
            shape = len(value) if value.shape[1] == 1 else value.shape
        return self.observe(name, family, shape)

    def known(self, name: str, shape: int | Sequence[int] | None = None, *, domain: Set | None = None) -> Any:
        """Declare a known number, such as a covariate or a dose: generic in every question, unless `at` gives it.

        Raises:
            ValueError: if the name is taken or no name, or the domain is empty.
        """
        chosen = S.Reals if domain is None else domain
        if chosen is S.EmptySet:
            raise ValueError(f"{name}'s domain should not be empty")
        symbols, value = self._new(name, shape, chosen)
        self.knowns.update(dict.fromkeys(symbols, chosen))
        return value

    def constraint(self, expression: Any, relation: str = "= 0") -> None:
        """Promise ``expression = 0`` or ``expression > 0`` about the parameters.

        Args:
            expression: of parameters and known numbers; a constraint on latents would change their prior.
            relation: "= 0" or "> 0".

        Raises:
            ValueError: for another relation, for latents, observations or strangers in the expression, and for a
                constraint that cannot hold.
        """
        if relation not in RELATIONS:
            raise ValueError(f"relation should be {' or '.join(map(repr, RELATIONS))}, got {relation!r}")
        stated = Constraint(exact(expression, "constraint"), relation)
        self._refuse_strangers(stated.expression, f"the constraint {stated}")
        holds = can_hold(stated)
        if holds is False:
            raise ValueError(f"a constraint should be possible, got {stated}")
        if holds is None:
            self.constraints.append(stated)

    def summary(self, expression: Any) -> None:
        """State that the law of the data determines this quantity: a cumulant, a cell probability, a coefficient.

        Where there are summaries, they alone answer the question about the parameters.

        Args:
            expression: of parameters and known numbers; or a list or matrix of such.

        Raises:
            ValueError: for latents, observations or strangers in the expression.
        """
        stated = [exact(entry, "summary") for entry in leaves(expression)]
        for entry in stated:
            self._refuse_strangers(entry, f"the summary {entry}")
        self.summaries += stated

    def _refuse_strangers(self, expression: Expr, subject: str) -> None:
        drawn = {*self.latent_symbols, *self.observation_symbols} & expression.free_symbols
        if drawn:
            raise ValueError(f"{subject} should be about parameters only, got {_listed(drawn)}")
        strangers = expression.free_symbols - set(self._symbols.values())
        if strangers:
            raise ValueError(f"{subject} mentions {_listed(strangers)}, which this model does not declare")

    def define(self, name: str, expression: Any) -> Any:
        """Give an expression a name, for the model's printed form; returns the expression itself."""
        self._refuse_name(name)
        self.definitions[name] = expression
        return expression

    def _draw(self, into: list[Statement], name: str, family: Family, shape: Any) -> Any:
        if not isinstance(family, Family):
            raise TypeError(f"{name} should be drawn from a family such as Normal(0, 1), got {family!r}")
        observed = {symbol for statement in self.observations for symbol in statement.symbols}
        stranger = {symbol for symbol in family.free_symbols if self._symbols.get(symbol.name) != symbol}
        if stranger:
            raise ValueError(
                f"{name}'s {family.name} mentions {_listed(stranger)}, which this model does not declare"
            )
        if family.free_symbols & observed:
            raise ValueError(
                f"{name}'s {family.name} mentions the observation {_listed(family.free_symbols & observed)}; "
                "observations may depend on latents and parameters only"
            )
        if family.dimension > 1 and shape is None:
            shape = family.dimension
        symbols, value = self._new(name, shape, family.support)
        if family.dimension > 1:
            if len(symbols) % family.dimension or shape_of(shape)[-1] != family.dimension:
                raise ValueError(
                    f"{name}'s last axis should have the {family.dimension} coordinates of {family.name}, got {shape}"
                )
            groups = [symbols[i : i + family.dimension] for i in range(0, len(symbols), family.dimension)]
            members = family.elementwise(len(groups))
        else:
            groups = [(symbol,) for symbol in symbols]
            members = [family] if shape is None else family.elementwise(len(symbols))
        into.extend(Statement(tuple(group), member) for group, member in zip(groups, members, strict=True))
        return value

    def _new(self, name: str, shape: Any, domain: Set) -> tuple[list[Symbol], Any]:
        assumptions = assumed(domain)
        if "[" in name:
            symbols = [Symbol(element, **assumptions) for element in self._grown(name, shape)]
            value: Any = symbols[0] if shape is None else sympy.ImmutableMatrix(symbols)
            self._symbols.update({symbol.name: symbol for symbol in symbols})
            return symbols, value
        self._refuse_name(name)
        if shape is None:
            symbols = [Symbol(name, **assumptions)]
            value = symbols[0]
        else:
            dimensions = shape_of(shape)
            names = element_names(name, dimensions)
            symbols = [Symbol(element, **assumptions) for element in names]
            value = sympy.ImmutableMatrix(dimensions[0], math.prod(dimensions[1:]), symbols)
            self._vectors[name] = dimensions
        self._symbols.update({symbol.name: symbol for symbol in symbols})
        return symbols, value

    def _grown(self, name: str, shape: Any) -> list[str]:
        # "z[3]" adds that element to the vector z; with a length it adds the row z[3,1], z[3,2], … to a matrix.
        base, _, inside = name.removesuffix("]").partition("[")
        index = tuple(int(part) if part.strip().isdecimal() else 0 for part in inside.split(","))
        position = index if shape is None else (*index, *shape_of(shape))
        if not 1 <= len(position) <= 2 or 0 in position:
            raise ValueError(
                f"an element's name should have one or two indices from 1 on, as in z[3], got {name!r}"
            )
        so_far = self._vectors.get(base, (0,) * len(position))
        rows = [index] if shape is None else [(*index, column) for column in range(1, position[-1] + 1)]
        names = [f"{base}[{','.join(map(str, row))}]" for row in rows]
        if base not in self._vectors:
            self._refuse_name(base)
        for element in names:
            if element in self._symbols or len(so_far) != len(position):
                raise ValueError(f"{element if element in self._symbols else base} is declared already")
        self._vectors[base] = tuple(map(max, so_far, position))
        return names

    def _refuse_name(self, name: str) -> None:
        if not name.isidentifier():
            raise ValueError(
                f"a name should be a letter or underscore, then letters, digits or underscores, got {name!r}"
            )
        if name in self._symbols or name in self._vectors or name in self.definitions:
            raise ValueError(f"{name} is declared already")

    # Reading

    @property
    def latent_symbols(self) -> tuple[Symbol, ...]:
        """The latents, element by element, in the order of declaration."""
        return tuple(symbol for statement in self.latents for symbol in statement.symbols)

    @property
    def observation_symbols(self) -> tuple[Symbol, ...]:
        """The observations, element by element."""
        return tuple(symbol for statement in self.observations for symbol in statement.symbols)

    @property
    def latent_names(self) -> tuple[str, ...]:
        """The latents' one-based names."""
        return tuple(symbol.name for symbol in self.latent_symbols)

    @property
    def observation_names(self) -> tuple[str, ...]:
        """The observations' one-based names: the headers of a CSV file of data."""
        return tuple(symbol.name for symbol in self.observation_symbols)

    @property
    def domains(self) -> dict[Symbol, Set]:
        """Where the parameters and the known numbers lie."""
        return {**self.parameters, **self.knowns}

    def support(self, latent: Symbol) -> Set:
        """Where a latent lies under its prior, whatever the parameters."""
        for statement in self.latents:
            if latent in statement.symbols:
                bounded = self._bounded(statement.family)
                return statement.family.support if bounded is None else bounded
        raise ValueError(f"{latent} should be one of the latents {', '.join(self.latent_names)}")

    def _bounded(self, family: Family) -> Set | None:
        # Binomial(m, p) with a finite latent m is finite too: at most as many as the largest m.
        if not isinstance(family, Binomial) or not family.arguments[0].free_symbols:
            return None
        trials = family.arguments[0]
        if not trials.free_symbols <= set(self.latent_symbols):
            return None
        values = {symbol: self.support(symbol) for symbol in trials.free_symbols}
        if any(
            support.is_FiniteSet is not True and not isinstance(support, Range) for support in values.values()
        ):
            return None
        if math.prod(len(support) for support in values.values()) > 4096:
            return None
        sizes = [
            trials.subs(dict(zip(values, point, strict=True)))
            for point in itertools.product(*values.values())
        ]
        return Range(0, max(sizes) + 1) if all(size.is_Integer for size in sizes) else None

    def log_likelihood(self) -> Expr:
        """``log p(x | z; θ)`` of one row, a SymPy expression in nats."""
        return sympy.Add(*[statement.log_density() for statement in self.observations])

    def log_prior(self) -> Expr:
        """``log p(z; θ)`` of one row, a SymPy expression in nats."""
        return sympy.Add(*[statement.log_density() for statement in self.latents])

    def conditions(self) -> Iterator[Condition]:
        """What SymPy's own assumptions do not settle: scales that must be positive, probabilities within [0, 1]."""
        supports = {symbol: st.family.support for st in self.latents for symbol in st.symbols} | self.domains
        for statement in [*self.latents, *self.observations]:
            subject = _listed(statement.symbols)
            for name, expression, domain in statement.family.expressions():
                if expression.free_symbols and not surely_in(domain, expression, supports):
                    yield Condition(expression, domain, f"the {name} of {subject}")
            for terms, role in statement.family.sums():
                total = sympy.expand(self._with_totals(terms))
                if total != 1:
                    yield Condition(total, sympy.FiniteSet(1), f"the sum of the {role} of {subject}")
            bounds = statement.family.bounds
            for low, high in zip(bounds[::2], bounds[1::2], strict=True):
                if not (high - low).is_positive:
                    yield Condition(high - low, POSITIVE, f"the width of {subject}")

    def _with_totals(self, expression: Expr) -> Expr:
        # The coordinates of a Dirichlet latent add up to 1 whatever they are.
        for statement in self.latents:
            total = statement.family.total
            if total is not None and expression.has(statement.symbols[-1]):
                *others, last = statement.symbols
                expression = expression.xreplace({last: total - sympy.Add(*others)})
        return expression

    # Fixing parameters

    def resolve(
        self, values: Mapping[Any, Any], argument: str, allowed: Sequence[Symbol]
    ) -> dict[Symbol, Expr]:
        """Symbols and exact values of a mapping such as ``{"w": [1, 0], "s": "1/2"}``.

        Keys are symbols or names, of an element or of a whole vector; values numbers, constant expressions as
        text, or lists of these. A float means its shortest decimal.

        Raises:
            ValueError: for an unknown name, a wrong length, or a value that is no finite number.
        """
        resolved: dict[Symbol, Expr] = {}
        names = {symbol.name: symbol for symbol in allowed}
        for key, value in values.items():
            name = key.name if isinstance(key, Symbol) else str(key).replace(" ", "")
            shape = self._vectors.get(name)
            elements = [name] if name in names else element_names(name, shape) if shape else []
            if not elements or any(element not in names for element in elements):
                known = ", ".join(names) or "none"
                raise ValueError(f"{argument} names {name!r}, which is none of: {known}")
            flat = [value] if elements == [name] else leaves(value)
            if len(flat) != len(elements):
                raise ValueError(
                    f"{argument} for {name} should have {len(elements)} value(s), got {len(flat)}"
                )
            for element, number in zip(elements, flat, strict=True):
                resolved[names[element]] = constant(number, f"{argument} for {element}")
        return resolved

    def at(self, values: Mapping[Any, Any] | None) -> Model:
        """The model with these parameters and known numbers fixed at exact values, after a check of their domains.

        Raises:
            ValueError: for what is neither, for a value outside its domain, and where a constraint is broken.
        """
        if not values:
            return self
        fixed = self.resolve(values, "at", tuple(self.domains))
        for symbol, value in fixed.items():
            domain = self.domains[symbol]
            if domain.contains(value) == sympy.false:
                raise ValueError(
                    f"at for {symbol} should be {DOMAIN_WORDS.get(domain, f'in {domain}')}, got {value}"
                )
        return self.replaced(fixed)

    def given(self, state: Mapping[Symbol, Expr]) -> Model:
        """The model with some latents held at values: they leave the prior and stand as numbers elsewhere."""
        held = self.replaced(state)
        held.latents = [s for s in held.latents if not set(s.symbols) <= set(state)]
        return held

    def replaced(self, values: Mapping[Symbol, Expr]) -> Model:
        """The model with these symbols written out, domains unchecked.

        Raises:
            ValueError: where an expression is then undefined or a constraint broken.
        """

        def change(expression: Expr) -> Expr:
            return defined_at(expression, values)

        fixed = Model(self.name)
        fixed.parameters = {
            symbol: domain for symbol, domain in self.parameters.items() if symbol not in values
        }
        fixed.knowns = {symbol: domain for symbol, domain in self.knowns.items() if symbol not in values}
        changed = [Constraint(change(c.expression), c.relation) for c in self.constraints]
        for before, after in zip(self.constraints, changed, strict=True):
            if can_hold(after) is False:
                raise ValueError(f"the constraint {before} should hold at the values given, got {after}")
        fixed.constraints = [c for c in changed if can_hold(c) is not True]
        fixed.summaries = [change(expression) for expression in self.summaries]
        fixed.latents = [Statement(s.symbols, _checked(s, s.family.map, change)) for s in self.latents]
        fixed.observations = [
            Statement(s.symbols, _checked(s, s.family.map, change)) for s in self.observations
        ]
        gone = {symbol.name for symbol in values}
        fixed.notes = [note for note in self.notes if note.split(" ", 1)[0] not in gone]
        fixed._symbols = {name: symbol for name, symbol in self._symbols.items() if name not in gone}
        fixed._vectors = self._vectors
        return fixed

    def __str__(self) -> str:
        from identkit.model.language import written

        return written(self)

    def __repr__(self) -> str:
        return f"<Model {self.name!r}: latents {', '.join(self.latent_names)}; data {', '.join(self.observation_names)}>"


def constant(value: Any, argument: str) -> Expr:
    """An exact constant: a number, or text such as ``"sqrt(4/3*log(4))"`` (read by the grammar, never by `eval`)."""
    if isinstance(value, str):
        from identkit.model.language import parse_constant

        value = parse_constant(value, argument)
    number = exact(value, argument)
    if number.free_symbols:
        raise ValueError(f"{argument} should be a constant, got {number}")
    if number.is_real is False or number.is_finite is False:
        raise ValueError(f"{argument} should be a real number, got {number}")
    return number


def _checked(statement: Statement, mapped: Any, change: Any) -> Family:
    try:
        return mapped(change)
    except ValueError as error:
        raise ValueError(f"{_listed(statement.symbols)}: {error}") from None


def _listed(symbols: Any) -> str:
    return ", ".join(sorted((symbol.name for symbol in symbols), key=str))


def defined_at(expression: Expr, values: Mapping[Symbol, Expr]) -> Expr:
    """The expression with values written in.

    Raises:
        ValueError: where it is then undefined.
    """
    changed = expression.subs(list(values.items()))
    if changed.has(S.ComplexInfinity, S.NaN):
        where = ", ".join(f"{symbol} = {value}" for symbol, value in values.items())
        raise ValueError(f"{expression} should be defined at {where}, got a division by zero")
    return changed
