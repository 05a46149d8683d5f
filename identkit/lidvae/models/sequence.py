"""Sequences of symbols: `LIDSVAE`, each of whose steps tells the latent, and `SequenceVAE`, whose LSTM may do without."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from identkit.lidvae.decoders import BrenierDecoder, Value
from identkit.lidvae.guarantee import Guarantee
from identkit.lidvae.likelihoods import Categorical
from identkit.lidvae.models.autoencoder import Terms
from identkit.lidvae.models.normal import NormalLatent
from identkit.lidvae.posteriors import GaussianPosterior
from identkit.lidvae.reading import AsItIs
from identkit.lidvae.recurrent import LSTMEncoder
from identkit.lidvae.sequence_decoders import OfferedLatent, SeenLatent, SequenceDecoder
from identkit.lidvae.sequence_proof import not_known, seen_at_every_step
from identkit.lidvae.stacked import stacked
from identkit.model.compiled.data import whole
from identkit.model.protocol import Bounded
from identkit.verdict import Verdict

_ALPHAS = 0.25  # the product of all α
_SCALE = 1.6  # of β, times √M: so 0.25 · 1.6 √M √(C/M) = 0.4 √C
_FEATURES = 128  # of a larger vocabulary
_STATE = 8  # entries of the LSTM's state that meet z


class SequenceAutoencoder(NormalLatent):
    """``z ~ N(0, I_K)``, ``x_t ~ p(x_t | z, x_<t)``, t = 1, …, T; rows are whole numbers 0, …, C − 1 of any length."""

    decoder: SequenceDecoder
    likelihood: Categorical
    word_dropout: float

    def __init__(self, arguments: Mapping[str, Any], *, own: tuple[str, ...] = ()) -> None:
        """Check what both kinds take.

        Args:
            arguments, own: as for `Autoencoder`.
        """
        super().__init__(arguments, own=own)
        if arguments["likelihood"] != "categorical":
            raise ValueError(
                f"likelihood should be 'categorical' for sequences of symbols, got {arguments['likelihood']!r}"
            )
        for name in ("data_dim", "embedding", "hidden", "encoder_hidden"):
            whole(arguments[name], name)
        self.likelihood = Categorical(arguments["data_dim"], arguments["categories"])
        self.reading = AsItIs()
        self.word_dropout = float(arguments["word_dropout"])
        if not 0 <= self.word_dropout < 1:
            raise ValueError(f"word_dropout should be in [0, 1), got {self.word_dropout}")

    def _encoder_of(
        self, encoder: str | nn.Module, embedding: int, hidden: int, generator: torch.Generator
    ) -> nn.Module:
        if isinstance(encoder, nn.Module):
            return stacked(encoder, self.members, generator=generator)
        if encoder != "lstm":
            raise ValueError(f"encoder should be 'lstm' or a module, got {encoder!r}")
        symbols = self.likelihood.categories
        return LSTMEncoder(self.members, symbols, self.latents, embedding, hidden, generator=generator)

    @property
    def columns(self) -> None:
        """Rows of any length go; `sample` draws those of `data_dim` symbols."""
        return

    @property
    def categories(self) -> int:
        """C."""
        return self.decoder.categories

    def rows(self, x: Any) -> Shaped[Tensor, "e n d"]:
        """Data as the model takes them: on its device, int64, with the axis of members.

        Raises:
            TypeError: no whole numbers. ValueError: the axes do not fit, or a state is outside 0, …, C − 1.
        """
        data = torch.as_tensor(x)
        if data.is_floating_point() or data.is_complex() or data.dtype == torch.bool:
            raise TypeError(f"x should hold states as whole numbers, such as int64, got {data.dtype}")
        data = super().rows(data.long())
        if data.shape[2] == 0:
            raise ValueError(
                "x should have at least one symbol a row, got shape " + str(tuple(torch.as_tensor(x).shape))
            )
        outside = (data < 0) | (data >= self.categories)
        if bool(outside.any()):
            _, row, step = outside.nonzero()[0].tolist()
            raise ValueError(
                f"x should hold states 0, …, {self.categories - 1}, got {int(data[outside][0])} in row {row}, step {step}"
            )
        return data

    def decoded(self, x: Shaped[Tensor, "e n d"], z: Float[Tensor, "s e n k"]) -> Float[Tensor, "s e n"]:
        """``log p(x | z)`` of S latents for each row, in nats."""
        return self.decoder.log_prob(x, z)

    def terms(
        self,
        x: Shaped[Tensor, "e n d"],
        q: GaussianPosterior,
        samples: int = 1,
        generator: torch.Generator | None = None,
    ) -> Terms:
        """KL in closed form, the likelihood by S draws; in training with words dropped from what the decoder reads."""
        if not self.training or self.word_dropout == 0:
            return super().terms(x, q, samples, generator)
        chances = torch.rand(x.shape, generator=generator, device=x.device)
        z = q.draw(samples, generator)
        return Terms(self.decoder.log_prob(x, z, chances < self.word_dropout).mean(0), q.kl())

    def start_(self, x: Shaped[Tensor, "n d"], *, generator: torch.Generator) -> None:
        """Begin from the training rows: symbols at their frequencies, slopes of order 1."""
        self.decoder.start_(self.rows(x)[0], generator=generator)
        self.started.fill_(True)

    def generate(
        self, z: Float[Tensor, "n k"], length: int | None = None, generator: torch.Generator | None = None
    ) -> Int[Tensor, "n t"]:
        """Speak a sequence for each z of a model of one member.

        Args:
            z: latents.
            length: symbols, `data_dim` by default.
            generator: of the draws.
        """
        self._alone("generate")
        latents = torch.as_tensor(z).to(self.device, self.dtype).unsqueeze(0)
        steps = self.likelihood.columns if length is None else whole(length, "length")
        return self._spoken(latents, steps, generator)[0]

    def _data_draws(
        self, z: Float[Tensor, "e n k"], generator: torch.Generator | None
    ) -> Shaped[Tensor, "e n d"]:
        return self._spoken(z, self.likelihood.columns, generator)

    @torch.no_grad()
    def _spoken(
        self, z: Float[Tensor, "e n k"], steps: int, generator: torch.Generator | None
    ) -> Int[Tensor, "e n t"]:
        memory = self.decoder.begin(z)
        symbol = torch.full(z.shape[:2], self.categories, device=z.device)
        drawn = []
        for _ in range(steps):
            logits, memory = self.decoder.step(symbol, memory, z)
            chances = logits.softmax(2).flatten(end_dim=1)
            symbol = torch.multinomial(chances, 1, generator=generator).view(symbol.shape)
            drawn.append(symbol)
        return torch.stack(drawn, dim=2)


class SequenceVAE(SequenceAutoencoder):
    """The usual variational autoencoder of sentences: an LSTM that is offered z and may leave it.

    It can tell x_t from x_<t alone, and with so strong a decoder the latent is readily lost.

    Source: Bowman et al. 2016.

    Args:
        data_dim: T, symbols of a row that `sample` draws; rows of any length can be learned from.
        latent_dim: K.
        likelihood: categorical.
        categories: C, the size of the vocabulary.
        embedding: entries of a symbol's vector.
        hidden: of the decoder's LSTM.
        word_dropout: share of the symbols that the decoder does not get to read while it trains (Bowman et al. 2016).
        encoder: "lstm", or a module of your own from rows (n, T), int64, to a `Normal` or to (n, 2K) means and log
            scales.
        encoder_hidden: of the encoder's LSTM.
        members: E, seeds and settings that train together.
        seed: of the initial weights.

    >>> model = SequenceVAE(6, 2, categories=5)
    >>> model.log_likelihood(torch.zeros(3, 6, dtype=torch.int64), torch.zeros(3, 2)).shape
    torch.Size([3])
    """

    name = "sequence"

    def __init__(
        self,
        data_dim: int,
        latent_dim: int,
        likelihood: str = "categorical",
        *,
        categories: int,
        embedding: int = 32,
        hidden: int = 64,
        word_dropout: float = 0.0,
        encoder: str | nn.Module = "lstm",
        encoder_hidden: int = 64,
        members: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(locals(), own=("encoder",))
        generator = torch.Generator().manual_seed(seed)
        self.encoder = self._encoder_of(encoder, embedding, encoder_hidden, generator)
        self.decoder = OfferedLatent(members, latent_dim, categories, embedding, hidden, generator=generator)

    def verdict(self) -> Verdict:
        """UNKNOWN: nothing is known of all histories; `identkit.check` of the decoder probes those it is given."""
        return not_known(self)


class LIDSVAE(SequenceAutoencoder):
    """The latent-identifiable sequential VAE: ``x_t | z, x_<t ~ softmax(W(f([z, P h_t]) + A h_t) + b)``.

    h_t is the state of an LSTM over x_<t, f a `BrenierDecoder` onto M features, W a scale times orthonormal contrasts of
    the C symbols. The law of x_t is injective in z at every step of every history: with ``clr p = log p − mean log p``,
    ``‖clr p_t(z) − clr p_t(z′)‖ ≥ m‖z − z′‖``, m fixed, stated by `certificate` and proved by `verdict`. How many nats
    survive follows the dials: ``m = α₁ α₂ s √(C/M)`` for two maps. By default ``m = 0.4 √C``, whatever the vocabulary: a
    unit of z moves log probabilities by at least 0.4 in the root mean square over symbols. A small m is injective and all
    but collapsed; a large one is paid for in likelihood.

    Large vocabularies: f acts on M features and not on all logits, and log-likelihoods hold no more than
    `identkit.lidvae.vocabulary.AT_ONCE` logits at a time. The guarantee is the same, since W is injective up to what a
    softmax forgets; all effects of z lie in the M dimensions that W spans.

    Source: Wang, Blei & Cunningham 2021, section 3; theory/T5.

    Args:
        data_dim, latent_dim, likelihood, categories, embedding, hidden, word_dropout, encoder, encoder_hidden, members,
            seed: as for `SequenceVAE`.
        map: of the `BrenierDecoder` f: "monotone", "logsumexp" or "icnn"; or f itself as a module of your own, from
            rows (n, K + R) to (n, M), which bounds itself from below (`identkit.model.protocol.Bounded`).
        map_hidden: widths of its maps, two or more.
        alphas: of its maps, equal ones with product 0.25 by default.
        scale: s, of its β; 1.6 √M by default.
        state: R, entries of ``P h_t``, which meet z in f: 8 by default, fewer where M − K is less.
        features: M, at least K + R and at most C − 1; the lesser of 128 and C − 1 by default.

    Raises:
        ValueError: a map of your own that does not bound itself, or sizes that do not fit: K + R ≤ M ≤ C − 1.

    >>> model = LIDSVAE(6, 2, categories=5)
    >>> print(model.certificate())  # 0.4 √5
    m = 0.894, ...
    >>> print(model.verdict().level)
    GLOBAL
    """

    name = "lidsvae"
    decoder: SeenLatent

    def __init__(
        self,
        data_dim: int,
        latent_dim: int,
        likelihood: str = "categorical",
        *,
        categories: int,
        embedding: int = 32,
        hidden: int = 64,
        word_dropout: float = 0.0,
        map: str | nn.Module = "monotone",
        map_hidden: Sequence[int] = (64, 64),
        alphas: Sequence[Value] | None = None,
        scale: Value | None = None,
        state: int | None = None,
        features: int | None = None,
        encoder: str | nn.Module = "lstm",
        encoder_hidden: int = 64,
        members: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(locals(), own=("encoder", "map"))
        generator = torch.Generator().manual_seed(seed)
        self.encoder = self._encoder_of(encoder, embedding, encoder_hidden, generator)
        most = categories - 1
        count = min(_FEATURES, most) if features is None else whole(features, "features")
        if not latent_dim <= count <= most:
            raise ValueError(
                f"features should be at least latent_dim = {latent_dim} and at most categories − 1 = {most}, the "
                f"contrasts of {categories} symbols, got {count}"
            )
        met = min(_STATE, count - latent_dim) if state is None else whole(state, "state", 0)
        if latent_dim + met > count:
            raise ValueError(
                f"state should be at most features − latent_dim = {count - latent_dim}, got {met}"
            )
        if isinstance(map, str):
            f: Any = BrenierDecoder(
                members,
                latent_dim + met,
                count,
                map=map,
                hidden=map_hidden,
                alphas=[_ALPHAS ** (1 / len(map_hidden))] * len(map_hidden) if alphas is None else alphas,
                scale=_SCALE * math.sqrt(count) if scale is None else scale,
                generator=generator,
            )
        else:
            f = stacked(map, members, generator=generator)
            if not isinstance(f, Bounded) or f.lower_lipschitz() is None:
                raise ValueError(
                    "map should bound itself from below by lower_lipschitz(), or nothing is proved, and "
                    f"{type(map).__name__} does not; SequenceVAE has no such map"
                )
        self.decoder = SeenLatent(
            members,
            latent_dim,
            categories,
            embedding,
            hidden,
            f=f,
            state=met,
            features=count,
            generator=generator,
        )

    def certificate(self, x: Shaped[Tensor, "n d"] | None = None) -> Guarantee | None:
        """What the decoder's Lipschitz constants prove of every member, at each step of every history (theory/T5).

        No nats: those are known for Gaussian noise only. None where a learned matrix has lost its rank in floats.
        """
        lower = self.decoder.lower_lipschitz()
        if lower is None:
            return None
        return Guarantee.of(lower, self.decoder.upper_lipschitz(), self.latents, None, x)

    def verdict(self) -> Verdict:
        """Which latents the law of a sequence determines: all of them, with the bound that proves it."""
        return seen_at_every_step(self)
