"""What the figures show is what the results say: points, bars, curves, bars of states, and words."""

from __future__ import annotations

import dataclasses
import io
import itertools
import math
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from matplotlib.axes import Axes
from matplotlib.colors import same_color
from matplotlib.figure import Figure
from numpy.testing import assert_allclose
from scipy import stats
from scipy.integrate import trapezoid

from identkit import plot as identkit_plot
from identkit.classical.gaussian_mixture import GaussianMixture
from identkit.classical.linear_gaussian import PPCA
from identkit.classical.mixture_weight import MixtureWeight
from identkit.plot.style import WRONG, BrokenAxis, log_label, log_ticks, number
from identkit.theorem import Row, TheoremCheck, verify

plot: Any = identkit_plot  # matplotlib's types say less than what the tests rely on
LINEAR = "z ~ Normal(0, 1); observe x ~ Normal(w*z, 1)"


def row(**changes: Any) -> Row:
    """A joint row of one datum on which all is well."""
    usual: dict[str, Any] = {
        **{"model": "m", "setting": "", "scope": "data", "latent": None, "datum": 1, "level": "INFORMED"},
        **{"n": 1, "flatness": 0.02, "omega": 0.4, "kl": 0.019, "kl_error": 1e-15, "kl_conditional": None},
        **{"band": (0.017, 0.023), "bound": "T4.3", "posterior_mean": None, "posterior_sd": None},
        "agrees": True,
    }
    return Row(**{**usual, **changes})


COLLAPSED = {"level": "CONSTANT", "flatness": 0.0, "omega": 0.0, "kl": 0.0, "band": (0.0, 0.0)}


@pytest.fixture(scope="module")
def real() -> TheoremCheck:
    """A check with all kinds of rows, none of them made up."""
    return verify(LINEAR, [[0.3], [2.0]], at={"w": 1})


@pytest.fixture(scope="module")
def check_of(real):
    """A check with the rows given."""
    return lambda *rows: dataclasses.replace(real, rows=tuple(rows))


def many(count: int, seed: int = 0) -> list[Row]:
    """Rows over many orders of magnitude, with bands that reach 0 and ∞ here and there."""
    rng = np.random.default_rng(seed)
    rows = []
    for i, flatness in enumerate(10 ** rng.uniform(-20, 6, count)):
        kl = flatness / (1 + flatness)
        low, high = kl * rng.uniform(0, 1), kl * rng.uniform(1, 50)
        band = ((0.0, high), (low, math.inf), (low, high))[i % 3]
        omega = (math.inf, 1e4, 5 * math.sqrt(flatness))[i % 3]
        level = ("INFORMED", "PARTIAL", "UNKNOWN")[i % 3]
        agrees = None if level == "UNKNOWN" else i % 11 != 0
        made = {"flatness": flatness, "kl": kl, "kl_error": 1e-16 * kl, "band": band, "omega": omega}
        rows.append(row(datum=i + 1, level=level, agrees=agrees, **made))
        if i % 5 == 0:
            rows.append(row(datum=i + 1, **COLLAPSED, kl_error=1e-300))
    return rows


def artists(ax: Axes, gid: str) -> list[Any]:
    return [artist for artist in ax.get_children() if (artist.get_gid() or "").startswith(gid)]


def drawn(ax: Axes, gid: str) -> np.ndarray:
    """The points (m, 2) of all lines of that name."""
    lines = [np.asarray(line.get_xydata()) for line in artists(ax, gid)]
    return np.concatenate(lines) if lines else np.empty((0, 2))


def in_order(points: Any) -> list[tuple[float, ...]]:
    return sorted(map(tuple, np.asarray(points).tolist()))


def saved(figure: Any) -> bytes:
    """The figure as PNG: laid out and drawn for good, in which any warning is an error."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


class TestTheorem:
    def test_every_joint_row_of_a_datum_is_a_point_where_it_belongs(self, check_of):
        rows = many(60)
        ax, _ = plot.theorem([check_of(*rows[:20]), check_of(*rows[20:])])
        points = drawn(ax, "points")
        assert len(points) == len(rows)
        seen = [point for point in in_order(points) if point[1] > points[:, 1].min()]
        assert_allclose(seen, in_order([(r.flatness, r.kl) for r in rows if r.level != "CONSTANT"]))

    def test_means_and_single_latents_are_not_points(self, real):
        ax, _ = plot.theorem([real])
        assert len(real.rows) == 6
        assert_allclose(in_order(drawn(ax, "points")), in_order([(r.flatness, r.kl) for r in real.rows[:2]]))

    def test_each_bar_is_its_band(self, check_of):
        rows = many(60)
        ax, _ = plot.theorem([check_of(*rows)])
        (bars,) = artists(ax, "bands")
        with_bar: list[Any] = [r for r in rows if r.flatness]
        segments = np.array(bars.get_segments())
        assert segments.shape == (len(with_bar), 2, 2)
        bottom, top = segments[..., 1].min(), ax.get_ylim()[1]
        for segment, r in zip(segments, with_bar, strict=True):
            low, high = r.band or (math.nan, math.nan)
            assert_allclose(segment[:, 0], r.flatness)
            assert_allclose(segment[:, 1], [max(low, bottom), min(high, top)])
        # A bar that ends at 0 or at ∞ leaves the logarithmic part of the picture.
        assert bottom < min(r.kl for r in with_bar)
        assert_allclose(top, segments[..., 1].max())

    def test_collapsed_data_lie_at_the_origin_and_are_counted(self, check_of):
        ax, _ = plot.theorem([check_of(*[row(datum=i, **COLLAPSED) for i in (1, 2, 3)], row(datum=4))])
        (words,) = artists(ax, "collapsed")
        assert words.get_text() == "3 data at (0, 0):\nposterior = prior"
        origin = drawn(ax, "points CONSTANT")
        assert len(np.unique(origin, axis=0)) == 1
        assert tuple(origin[0]) == words.xy
        for ticks, labels, place in (
            (ax.get_xticks(), ax.get_xticklabels(), origin[0, 0]),
            (ax.get_yticks(), ax.get_yticklabels(), origin[0, 1]),
        ):
            assert ticks[0] == place < 0.02
            assert labels[0].get_text() == "0"

    def test_what_is_lost_below_precision_is_not_counted_as_collapsed(self, check_of):
        lost = row(datum=2, flatness=1e-20, kl=0.0, kl_error=1e-15, agrees=None)
        ax, _ = plot.theorem([check_of(row(**COLLAPSED), lost, row(datum=3))])
        (words,) = artists(ax, "collapsed")
        assert words.get_text() == "1 datum at (0, 0):\nposterior = prior\n(1 more below precision)"

    def test_a_flat_likelihood_with_a_moved_posterior_shows_as_such(self, check_of):
        lie = row(flatness=0.0, omega=0.0, kl=0.3, level="CONSTANT", agrees=False, band=(0.0, 0.0))
        other = row(
            datum=2, kl=0.0, agrees=False
        )  # the posterior repeats the prior, the likelihood is not flat
        ax, right = plot.theorem([check_of(lie, other, row(datum=3))])
        points = in_order(drawn(ax, "wrong"))
        assert points[0][1] == pytest.approx(0.3)
        assert points[0][0] == ax.get_xticks()[0]
        assert points[1][0] == pytest.approx(0.02)
        assert points[1][1] == ax.get_yticks()[0]
        assert not artists(ax, "collapsed")
        assert drawn(right, "wrong")[:, 1] == right.get_yticks()[0]

    def test_contradictions_and_nothing_else_are_circled_and_counted(self, check_of):
        rows = many(60)
        ax, _ = plot.theorem([check_of(*rows)])
        wrong = [r for r in rows if r.agrees is False]
        assert_allclose(in_order(drawn(ax, "wrong")), in_order([(r.flatness, r.kl) for r in wrong]))
        assert same_color(artists(ax, "wrong")[0].get_markeredgecolor(), WRONG)
        agree, undecided = (sum(r.agrees is answer for r in rows) for answer in (True, None))
        first, second = ax.get_title(loc="left").split(",\n")
        assert first == f"{agree} of {len(rows)} data agree with the theorem"
        assert second == f"{len(wrong)} contradict it, {undecided} undecided"
        assert "contradicts the theorem" in [text.get_text() for text in ax.get_legend().get_texts()]

    def test_the_legend_names_only_what_is_there(self, real):
        ax, _ = plot.theorem([real])
        names = [text.get_text() for text in ax.get_legend().get_texts()]
        assert names == ["INFORMED", "certified band", "KL = ½ Var$_P$(ℓ)"]

    def test_below_precision_is_neither_agreement_nor_contradiction(self, check_of):
        ax, _ = plot.theorem([check_of(row(kl=0.0, kl_error=1e-9, agrees=None), row(datum=2))])
        assert ax.get_title(loc="left") == "1 of 2 data agree with the theorem,\n1 below precision"

    def test_ratios_lie_between_their_two_curves(self, check_of):
        rows = many(90)
        _, ax = plot.theorem([check_of(*rows)])
        within = [r for r in rows if r.flatness and r.omega is not None and 0 < r.omega <= 700]
        expected = [(r.omega, r.kl / r.flatness) for r in within if r.flatness]
        assert_allclose(in_order(drawn(ax, "points")), in_order(expected))
        assert f"{len(within)} data here\n{len(rows) - len(within)} not" in ax.texts[0].get_text()
        for gid, sign in (("lower curve", 1), ("upper curve", -1)):
            omega, ratio = drawn(ax, gid).T
            shown = (omega > 0.1) & np.isfinite(ratio)
            omega, ratio = omega[shown], ratio[shown]
            assert len(omega) > 10
            assert_allclose(ratio, 2 * (1 - (1 + sign * omega) * np.exp(-sign * omega)) / omega**2)

    def test_three_points_and_ten_thousand_draw_without_a_warning(self, check_of, real):
        for checks, crowded in (([real], False), ([check_of(*many(8500))], True)):
            left, right = plot.theorem(checks)
            for ax in (left, right):
                assert all(line.get_rasterized() == crowded for line in artists(ax, "points"))
            assert saved(left.figure).startswith(b"\x89PNG")

    def test_nothing_to_draw_is_said(self, check_of):
        left, right = plot.theorem([])
        assert [ax.texts[0].get_text() for ax in (left, right)] == ["no data", "no datum with 0 < ω ≤ 700"]
        _, right = plot.theorem([check_of(row(omega=math.inf))])
        assert right.texts[0].get_text() == "no datum with 0 < ω ≤ 700"
        saved(left.figure)

    def test_it_draws_on_given_axes(self, real):
        axes = Figure().subplots(1, 2)
        assert plot.theorem([real], axes) == tuple(axes)
        with pytest.raises(ValueError, match="ax should be two axes, got 1"):
            plot.theorem([real], [axes[0]])


class TestAgreement:
    def table(self, ax: Axes) -> list[list[str]]:
        words = [text.get_text() for text in ax.texts]
        return [words[i : i + 3] for i in (0, 3, 6)]

    def test_it_counts_every_row_of_a_datum_in_its_cell(self, check_of):
        latent = {"latent": "z", "kl": 0.0, "band": None, "flatness": None, "omega": None}
        rows = [
            *[row(**COLLAPSED)] * 4,
            *[row()] * 3,
            row(**latent, kl_conditional=0.2),  # XOR: the marginal does not move, the conditional does
            *[row(kl=0.0, agrees=None)] * 2,
            row(level="UNKNOWN", agrees=None),
            row(level="UNKNOWN", agrees=None, kl=0.0),
            row(datum=None, agrees=False),
        ]
        ax = plot.agreement([check_of(*rows)])
        assert self.table(ax) == [["4", "0", "0"], ["0", "4", "2"], ["1", "1", "0"]]
        assert not artists(ax, "wrong")
        saved(ax.figure)

    def test_contradictions_are_framed_in_their_cells(self, check_of):
        rows = [
            row(**{**COLLAPSED, "kl": 1.0}, agrees=False),
            row(kl=0.0, agrees=False),
            *[row(band=(0.1, 0.2), agrees=False)] * 2,  # outside its band
            row(),
        ]
        ax = plot.agreement([check_of(*rows)])
        assert self.table(ax) == [
            ["0", "1\n1 contradiction", "0"],
            ["1\n1 contradiction", "3\n2 contradictions", "0"],
            ["0", "0", "0"],
        ]
        cells = {(round(f.get_x() + 0.48), round(f.get_y() + 0.47)) for f in artists(ax, "wrong")}
        assert cells == {(1, 0), (0, 1), (1, 1)}

    def test_it_draws_on_a_given_axes(self, real):
        ax = Figure().subplots()
        assert plot.agreement([real], ax) is ax


class TestPosterior:
    def curves(self, ax: Axes) -> dict[str, np.ndarray]:
        lines = ("posterior", "prior")
        return {name: np.asarray(l.get_xydata()).T for name, l in zip(lines, ax.get_lines(), strict=True)}

    def bars(self, ax: Axes) -> dict[str, list[float]]:
        groups: Any = ax.containers
        return {group.get_label(): [bar.get_height() for bar in group] for group in groups}

    def test_ppca_marginals_are_normal(self):
        model, x = PPCA([[1.0, 0.0], [2.0, 0.0]], 1.0), [[1.0, 1.0], [0.0, 3.0]]
        axes = plot.posterior(model, x)
        assert axes.shape == (2, 2)
        mean, sd = model.posterior_moments(x)
        for i, j in np.ndindex(2, 2):
            curves = self.curves(axes[i, j])
            points, density = curves["posterior"]
            assert_allclose(density, stats.norm.pdf(points, mean[i, j], sd[i, j]), rtol=1e-10, atol=1e-14)
            assert_allclose(curves["prior"][1], stats.norm.pdf(points), rtol=1e-10)
        assert axes[0, 1].get_title() == "KL 0 nats"
        assert axes[0, 1].get_xlabel() == "z[2]"
        assert axes[1, 0].get_ylabel() == "datum 2\ndensity"
        saved(axes[0, 0].figure)

    def test_many_latents_get_room_and_a_legend_beside_them(self):
        model = PPCA(np.eye(6), 1.0)
        figure = plot.posterior(model, np.ones((2, 6)))[0, 0].figure
        figure.canvas.draw()
        titles = [ax.title.get_window_extent() for ax in figure.axes[:6]]
        assert all(left.x1 < right.x0 for left, right in itertools.pairwise(titles))
        assert not figure.axes[0].get_legend()
        legend = figure.legends[0].get_window_extent()
        assert all(legend.y0 >= ax.get_window_extent().y1 for ax in figure.axes)

    def test_a_needle_that_a_mixture_hides_is_drawn(self):
        """Half of N(2; 0, 1) lies in a needle at 2; elsewhere ℓ is flat."""
        ax = plot.posterior(
            "z ~ Normal(0, 1); observe x ~ Mixture([1/2, 1/2], Normal(z, 1e-8), Normal(0, 10))", [[2.0]]
        )
        assert ax.get_title() == "KL 10.87 nats"

    def test_a_text_model_is_drawn_by_quadrature(self):
        ax = plot.posterior(LINEAR, [[1.0]], at={"w": 1})
        points, density = self.curves(ax)["posterior"]
        assert_allclose(density, stats.norm.pdf(points, 0.5, math.sqrt(0.5)), rtol=1e-9)
        assert ax.get_title() == "KL 0.2216 nats"

    def test_pooled_rows_share_their_latent(self):
        ax = plot.posterior(LINEAR, [[1.0], [2.0], [3.0]], at={"w": 1}, pooled=True)
        points, density = self.curves(ax)["posterior"]
        assert_allclose(density, stats.norm.pdf(points, 6 / 4, 0.5), rtol=1e-9)

    def test_narrow_modes_are_not_cut_off(self):
        ax = plot.posterior("z ~ Normal(0, 1); observe x ~ Normal(z^2, 1/100)", [[1.0]])
        points, density = self.curves(ax)["posterior"]
        assert trapezoid(density, points) == pytest.approx(1, abs=5e-3)
        # Two modes of width 1/200 at ±1.
        assert density.max() == pytest.approx(0.5 * 200 / math.sqrt(2 * math.pi), rel=2e-3)
        assert set(np.round(points[density > 0.9 * density.max()], 2)) == {-1.0, 1.0}

    def test_the_mixing_weight_stays_in_its_support(self):
        ax = plot.posterior(MixtureWeight([(-10, 1), (10, 1)]), [-10.0, -9.0, 11.0])
        points, density = self.curves(ax)["posterior"]
        assert_allclose(density, stats.beta.pdf(points, 7, 6), rtol=1e-6)
        assert_allclose(self.curves(ax)["prior"][1], stats.beta.pdf(points, 5, 5), rtol=1e-6)
        assert 0 < points.min() < points.max() < 1

    def test_states_are_bars_numbered_from_one(self):
        model, x = GaussianMixture([0.2, 0.8], [[-1.0], [1.0]], [[[1.0]], [[1.0]]]), [[0.4]]
        ax = plot.posterior(model, x)
        bars = self.bars(ax)
        assert_allclose(bars["posterior"], model.posterior(x).probs[0])
        assert_allclose(bars["prior"], [0.2, 0.8])
        assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "2"]
        text = "k ~ Categorical(1/5, 4/5); observe x ~ Normal(select(k, -1, 1), 1)"
        same = plot.posterior(text, x)
        assert_allclose(self.bars(same)["posterior"], bars["posterior"])
        assert [label.get_text() for label in same.get_xticklabels()] == ["1", "2"]

    def test_coins_are_bars_numbered_from_zero(self):
        xor = "a ~ Bernoulli(1/2); b ~ Bernoulli(1/2); observe x ~ Bernoulli(1/10 + 8/10*(a + b - 2*a*b))"
        axes = plot.posterior(xor, [[1.0]])
        for ax in axes.flat:
            assert_allclose(self.bars(ax)["posterior"], [0.5, 0.5])
            assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "1"]
            assert ax.get_title().startswith("KL 0 nats")

    def test_columns_by_name(self):
        model = PPCA([[1.0], [2.0]], 1.0)
        one = plot.posterior(model, {"x[1]": [1.0], "x[2]": [0.5]})
        other = plot.posterior(model, [[1.0, 0.5]])
        assert_allclose(self.curves(one)["posterior"], self.curves(other)["posterior"])

    @pytest.mark.parametrize(
        ("model", "x", "options", "message"),
        [
            (LINEAR, [[0.0]] * 9, {"at": {"w": 1}}, "x should have at most 8 rows to draw, got 9"),
            (PPCA([[1.0]], 1.0), [[0.0]] * 9, {}, "x should have at most 8 rows to draw, got 9"),
            (PPCA([[1.0]], 1.0), [[0.0]], {"at": {"w": 1}}, "at should be None for a PPCA"),
            (PPCA([[1.0]], 1.0), [[0.0]], {"pooled": True}, "pooled should be False: each row of a PPCA"),
            (LINEAR, [[0.0], [1.0]], {"at": {"w": 1}, "ax": [Figure().subplots()]}, "ax should be 2 axes"),
        ],
    )
    def test_bad_input_is_named(self, model, x, options, message):
        with pytest.raises(ValueError, match=message):
            plot.posterior(model, x, **options)

    def test_it_draws_on_given_axes(self):
        axes = Figure().subplots(1, 2)
        found = plot.posterior(LINEAR, [[0.0], [1.0]], axes, at={"w": 1})
        assert [ax.get_title() for ax in axes] == [ax.get_title() for ax in found.flat]


class TestMixtureWeight:
    x = torch.cat([torch.full((850,), -10.0), torch.full((150,), 10.0)]).to(torch.float64)

    def panels(self, **draws: Any) -> list[Any]:
        flat, apart = MixtureWeight([(-1, 1), (-1, 1)]), MixtureWeight([(-10, 1), (10, 1)])
        return [
            plot.WeightPanel(name="single", model=flat, x=self.x),
            plot.WeightPanel(name="separated", model=apart, x=self.x, **draws),
        ]

    def test_the_exact_posterior_is_drawn_and_summed_up(self):
        figure = plot.mixture_weight(self.panels())
        flat, apart = figure.axes[:2]
        law = stats.beta(855, 155)
        points, density = apart.get_lines()[1].get_xydata().T
        assert_allclose(density, law.pdf(points), rtol=1e-6, atol=1e-12)
        assert f"exact: {law.mean():.4f} ± {law.std():.4f}" in apart.get_xlabel()
        assert "exact: 0.5000 ± 0.1508" in flat.get_xlabel()
        assert "prior): 0 nats" in flat.get_xlabel()
        prior, same = (line.get_ydata() for line in flat.get_lines()[:2])
        assert_allclose(prior, same, rtol=1e-9)

    def test_only_a_spike_gets_an_inset_that_shows_it(self):
        flat, apart = plot.mixture_weight(self.panels()).axes[:2]
        assert not flat.child_axes
        (inset,) = apart.child_axes
        low, high = inset.get_xlim()
        assert stats.beta(855, 155).cdf(high) - stats.beta(855, 155).cdf(low) > 0.999
        assert high - low < 0.2

    def test_draws_are_histograms_of_mass_one(self):
        rng = np.random.default_rng(0)
        hmc, advi = rng.normal(0.146, 0.004, 1000), rng.normal(0.85, 0.01, 800)
        figure = plot.mixture_weight(self.panels(hmc=hmc, advi=torch.from_numpy(advi)))
        ax = figure.axes[1]
        steps = {
            patch.get_label(): patch.get_data()
            for patch in ax.patches
            if patch.get_label() in ("HMC", "ADVI")
        }
        for name, values in (("HMC", hmc), ("ADVI", advi)):
            assert (steps[name].values * np.diff(steps[name].edges)).sum() == pytest.approx(1)
            assert (steps[name].edges[0], steps[name].edges[-1]) == (values.min(), values.max())
            assert f"{name}: {values.mean():.4f} ± {values.std():.4f}" in ax.get_xlabel()
        names = [text.get_text() for text in figure.legends[0].get_texts()]
        assert names == ["prior", "exact posterior", "HMC", "ADVI"]
        # The inset hides none of the laws.
        left, width = ax.child_axes[0].get_position().bounds[0::2]
        for centre in (hmc.mean(), 0.85):
            place = ax.transAxes.transform((centre, 0))[0] / figure.bbox.width
            assert not left < place < left + width
        saved(figure)

    def test_bad_input_is_named(self):
        with pytest.raises(ValueError, match="HMC should be finite"):
            plot.mixture_weight(self.panels(hmc=[0.1, math.nan]))
        with pytest.raises(ValueError, match="at least one WeightPanel"):
            plot.mixture_weight([])


class TestSweep:
    def sweep(self, **changes: Any) -> Any:
        sigmas = torch.logspace(-1, 1, 21, dtype=torch.float64)
        eigenvalues = torch.tensor([9.0, 1.0], dtype=torch.float64)
        loadings = (eigenvalues - sigmas[:, None].square()).clamp(min=0).sqrt()
        gain = (loadings / sigmas[:, None]).square()
        usual: dict[str, Any] = {
            "sigmas": sigmas,
            "posterior_sd": (1 + gain).rsqrt(),
            "kl_conditional": gain.log1p() / 2,
            "mutual_information": gain.log1p().sum(1) / 2,
            "loading_norms": loadings,
            "levels": [["GLOBAL" if norm else "CONSTANT" for norm in row] for row in loadings.tolist()],
            "eigenvalues": eigenvalues,
            "title": "three and one",
        }
        return plot.Sweep(**{**usual, **changes})

    def test_lines_are_the_numbers(self):
        sweep = self.sweep()
        figure = plot.ppca_sweep(sweep)
        panels = (sweep.posterior_sd, sweep.kl_conditional, sweep.loading_norms)
        for ax, values in zip(figure.axes[:3], panels, strict=True):
            named = {line.get_label(): line for line in ax.get_lines()}
            for j in (0, 1):
                assert_allclose(named[f"z[{j + 1}]"].get_xdata(), sweep.sigmas)
                assert_allclose(named[f"z[{j + 1}]"].get_ydata(), values[:, j])
                top = float(values[:, j].max())
                assert ax.get_ylim()[0] == 0
                assert ax.get_ylim()[1] >= top
        information = {line.get_label(): line.get_ydata() for line in figure.axes[1].get_lines()}
        assert_allclose(information["$I(z; x)$, all latents"], sweep.mutual_information)
        assert figure.axes[1].get_ylim()[1] >= float(sweep.mutual_information.max())
        saved(figure)

    def test_the_ribbon_switches_where_the_verdict_does(self):
        sweep = self.sweep()
        ribbon = plot.ppca_sweep(sweep).axes[3]
        for j, root in enumerate((3.0, 1.0)):
            bars = [bar for bar in ribbon.patches if round(bar.get_y() + 0.4) == j]
            assert [bar.get_gid() for bar in bars] == ["GLOBAL", "CONSTANT"]
            first, second = bars
            edge = first.get_x() + first.get_width()
            assert first.get_x() == pytest.approx(0.1)
            assert edge == pytest.approx(second.get_x())
            assert second.get_x() + second.get_width() == pytest.approx(10)
            step = float(sweep.sigmas[1] / sweep.sigmas[0])
            assert root / step <= edge <= root * step

    def test_each_eigenvalue_inside_has_its_line(self):
        figure = plot.ppca_sweep(self.sweep(eigenvalues=torch.tensor([9.0, 1e-6], dtype=torch.float64)))
        for ax in figure.axes:
            dotted = [line for line in ax.get_lines() if list(line.get_xdata()) == [3.0, 3.0]]
            assert len(dotted) == 1
        assert [text.get_text() for text in figure.axes[0].texts] == ["prior", "√λ$_{1}$ = 3.00"]

    def test_bad_input_is_named(self):
        with pytest.raises(ValueError, match="levels should be 21 lists of 2 names"):
            self.sweep(levels=[["GLOBAL"]])
        with pytest.raises(ValueError, match="sigmas should be positive and increasing"):
            self.sweep(sigmas=torch.linspace(2, 1, 21, dtype=torch.float64))


class TestStyle:
    @given(low=st.floats(-300, 280), decades=st.floats(0.7, 20))
    def test_a_log_axis_has_ticks_inside_it(self, low, decades):
        ends = 10.0**low, 10.0 ** (low + decades)
        ticks = log_ticks(*ends)
        assert 2 <= len(ticks) <= 9
        assert ticks == sorted(ticks)
        assert all(ends[0] * (1 - 1e-8) <= tick <= ends[1] * (1 + 1e-8) for tick in ticks)

    @given(st.lists(st.floats(1e-25, 1e9) | st.just(0.0), min_size=1, max_size=8))
    def test_a_broken_axis_keeps_order_and_puts_zeros_below_all(self, numbers):
        values = np.array(numbers)
        axis = BrokenAxis(values, values == 0)
        places = axis.positions
        assert_allclose(places[values > 0], values[values > 0])
        assert (places[values == 0] == axis.zero).all()
        assert axis.broken == bool((values == 0).any())
        if axis.broken:
            assert axis.zero < axis.floor <= values[values > 0].min(initial=math.inf)

    @pytest.mark.parametrize(
        ("value", "label"),
        [(200, "200"), (1e4, "$10^{4}$"), (2e-7, r"$2\times10^{-7}$"), (0.01, "0.01")],
    )
    def test_tick_labels(self, value, label):
        assert log_label(value) == label

    @pytest.mark.parametrize(
        ("value", "words"),
        [(0, "0"), (6.10712, "6.107"), (-0.25, "−0.25"), (1.329e-13, r"$1.33\times10^{-13}$")],
    )
    def test_numbers(self, value, words):
        assert number(value) == words

    def test_drawing_leaves_the_callers_settings_alone(self, real):
        before = dict(matplotlib.rcParams)
        plot.theorem([real])
        assert dict(matplotlib.rcParams) == before

    def test_no_window_is_ever_opened(self, real):
        from matplotlib import pyplot

        axes = [*plot.theorem([real]), plot.agreement([real]), plot.posterior(LINEAR, [[1.0]], at={"w": 1})]
        assert [ax.figure.canvas.manager for ax in axes] == [None] * 4
        assert pyplot.get_fignums() == []
