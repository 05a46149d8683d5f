"""Factorisations, topics, networks."""

from __future__ import annotations

from itertools import combinations, product

from identkit.zoo.case import Case, levels


def _canonical_polyadic(rank: int) -> str:
    cells = [
        "summary " + " + ".join(f"A[{i},{r}]*B[{j},{r}]*C[{k},{r}]" for r in range(1, rank + 1))
        for i, j, k in product((1, 2, 3), repeat=3)
    ]
    return f"parameter A[3, {rank}]; parameter B[3, {rank}]; parameter C[3, {rank}]; " + "; ".join(cells)


def _topics(length: int) -> str:
    first, second = [f"t*b[1,{v}] + (1 - t)*b[2,{v}]" for v in (1, 2)]
    return f"""
        parameter b[2, 2] in (0, 1)
        t ~ Beta(alpha[1], alpha[2])
        for n in 1..{length}:
            observe w[n] ~ Categorical({first}, {second}, 1 - ({first}) - ({second}))
    """


def _blocks(nodes: int) -> str:
    lines = ["parameter q in (0, 1); parameter r[3] in (0, 1)", f"z[{nodes}] ~ Bernoulli(q)"]
    lines += [
        f"observe e{i}{j} ~ Bernoulli(select(z[{i}] + z[{j}] + 1, r[1], r[2], r[3]))"
        for i, j in combinations(range(1, nodes + 1), 2)
    ]
    return "\n".join(lines)


def _machine(visible: int, hidden: int) -> str:
    """Ratios ``p(v)/p(0)`` of a restricted Boltzmann machine, its hidden units summed out."""
    weights = [[f"W[{i},{h}]" for i in range(1, visible + 1)] for h in range(1, hidden + 1)]
    lines = [f"parameter W[{visible}, {hidden}]; parameter c[{visible}]; parameter b[{hidden}]"]
    for state in list(product((0, 1), repeat=visible))[1:]:
        on = [i for i, value in enumerate(state) if value]
        factors = ["exp(" + " + ".join(f"c[{i + 1}]" for i in on) + ")"]
        for h, row in enumerate(weights, 1):
            factors.append(f"(1 + exp({' + '.join([f'b[{h}]', *[row[i] for i in on]])}))/(1 + exp(b[{h}]))")
        lines.append("summary " + "*".join(factors))
    return "\n".join(lines)


CASES = (
    Case(
        name="matrix-factorisation",
        model="parameter U[5, 2]; parameter V[6, 2]; observe X[5, 6] ~ Normal(U @ transpose(V), 1)",
        about="parameters",
        source="G1 (22/18/4); by hand: (U A, V A⁻ᵀ)",
        levels=levels(PARTIAL="U[1..5,1..2] V[1..6,1..2]"),
        level="PARTIAL",
        deficiency=4,
        note="All of GL(2), in four affine fields.",
    ),
    *[
        Case(
            name=f"tensor-rank-{word}",
            model=_canonical_polyadic(rank),
            about="parameters",
            source=f"G5 ({9 * rank}/{7 * rank}/{2 * rank}); Kruskal 1977",
            levels=levels(PARTIAL=f"A[1..3,1..{rank}] B[1..3,1..{rank}] C[1..3,1..{rank}]"),
            level="PARTIAL",
            deficiency=2 * rank,
            symmetry="scaling",
            note="Unique up to scaling and order, which matrices are not.",
        )
        for rank, word in ((2, "two"), (3, "three"))
    ],
    *[
        Case(
            name=f"topics-{word}-words" if length > 1 else "topics-one-word",
            model=_topics(length),
            about="parameters",
            source=f"G6 (6/{6 - lost}/{lost}); cf. Anandkumar et al. 2012; by hand: every unknown varies in the null space",
            levels=levels(**{"LOCAL" if lost == 0 else "PARTIAL": "alpha[1..2] b[1..2,1..2]"}),
            level="LOCAL" if lost == 0 else "PARTIAL",
            deficiency=lost,
            symmetry="permutation" if lost == 0 else "",
            note="Documents of three words do not determine two topics; four do."
            if length > 2
            else "Short documents say little.",
        )
        for length, lost, word in ((1, 4, "one"), (2, 2, "two"), (3, 1, "three"), (4, 0, "four"))
    ],
    *[
        Case(
            name=f"block-model-{word}-nodes",
            model=_blocks(nodes),
            about="parameters",
            source=f"G11 (4/{4 - lost}/{lost}); Allman, Matias & Rhodes 2011; by hand: every unknown varies in the null space",
            levels=levels(PARTIAL="q r[1..3]"),
            level="PARTIAL",
            deficiency=lost,
            note="Too few nodes for two blocks.",
        )
        for nodes, lost, word in ((2, 3, "two"), (3, 1, "three"))
    ],
    Case(
        name="block-model-four-nodes",
        model=_blocks(4),
        about="parameters",
        source="G11 (4/4/0, #=2); Allman, Matias & Rhodes 2011: the swap of the blocks fixes the rate between them",
        levels=levels(LOCAL="q r[1] r[3]", GLOBAL="r[2]"),
        level="LOCAL",
        deficiency=0,
        symmetry="permutation",
        note="Four nodes are enough, but for the names of the blocks.",
    ),
    Case(
        name="block-model-symmetric",
        model=_blocks(4),
        about="parameters",
        at={"q": "1/2", "r": ["1/3", "1/5", "1/3"]},
        source="G12 (4/2/2) and I.1; by hand: the fixed point of the swap of blocks",
        levels=levels(GLOBAL="q r[1..3]"),
        level="GLOBAL",
        undecided=("q", "r[1]", "r[2]", "r[3]"),
        reason="singular point: the rank drops, and that the fibre is one point was not proved",
        note="Flat to first order, and not unidentified.",
    ),
    Case(
        name="boltzmann-two-visible",
        model=_machine(2, 1),
        about="parameters",
        source="G19 (5/3/2); Cueto, Morton & Sturmfels 2010",
        levels=levels(PARTIAL="W[1..2,1] c[1..2] b[1]"),
        level="PARTIAL",
        deficiency=2,
        note="Three ratios for five weights.",
    ),
    *[
        Case(
            name=f"boltzmann-{word}-visible",
            model=_machine(visible, hidden),
            about="parameters",
            source=f"G19 ({count}/{count}/0); Cueto, Morton & Sturmfels 2010: (W, b, c) → (−W, −b, c + W) for a hidden unit",
            levels=levels(LOCAL=f"W[1..{visible},1..{hidden}] c[1..{visible}] b[1..{hidden}]"),
            level="LOCAL",
            deficiency=0,
            symmetry="other",
            note="Turning a hidden unit over changes nothing.",
        )
        for visible, hidden, count, word in ((3, 1, 7, "three"), (4, 2, 14, "four"), (5, 2, 17, "five"))
    ],
)
