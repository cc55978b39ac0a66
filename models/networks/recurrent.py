"""Recurrent networks of sequences of tokens: gated recurrent units inwards, and outwards with teacher forcing.

Sequences of any length, packed: padding costs no step of a unit and no softmax. Source of the units: Cho et al.,
Learning phrase representations using RNN encoder-decoder, EMNLP 2014; of the autoencoder: Bowman et al., Generating
sentences from a continuous space, CoNLL 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from scipy import sparse
from sklearn.feature_extraction.text import TfidfTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from models.networks.base import Decoder, NetworkPair, Start
from models.networks.of_data import leading_directions
from models.networks.spread import rank, spread
from models.networks.token_bags import READS, BagEncoder
from models.rows import AnyRows, Form, TokenRows
from pyro_cvae.errors import InputError

if TYPE_CHECKING:
    from models.contents.base import ContentLikelihood

LONGEST_DRAW = 10_000
"""Tokens after which a draw that has not come to its end is given up."""


def run(gru: nn.GRU, inputs: Tensor, lengths: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Outputs at the real positions, sequence by sequence, (n_positions, width), and the last states.

    Shapes: ``inputs`` (n_items, longest, width), ``lengths`` (n_items,) above 0, states (n_directions, n_items, width).
    """
    packed = pack_padded_sequence(inputs, lengths.cpu(), batch_first=True, enforce_sorted=False)
    outputs, last = gru(packed, state)
    padded, _ = pad_packed_sequence(outputs, batch_first=True)
    return padded[torch.arange(padded.shape[1], device=padded.device) < lengths[:, None]], last


class RecurrentEncoder(BagEncoder):
    """mu and log sigma^2 linear in [s, h], s the bag of embeddings.

    h are the last states of gated recurrent units that read the tokens and the end forwards and backwards.
    """

    def __init__(self, n_tokens: int, n_factors: int, width: int, radius: float = 0.0) -> None:
        super().__init__(n_tokens, width, radius)
        self.gru = nn.GRU(width, width, batch_first=True, bidirectional=True)
        self.loc = nn.Linear(3 * width, n_factors)
        self.log_variance = nn.Linear(3 * width, n_factors)

    def hidden(self, content: TokenRows) -> Tensor:
        """The last states of both directions, (n_items, 2 width)."""
        ended = content.ended()
        tokens, _ = ended.padded()
        _, last = run(self.gru, F.embedding(tokens, self.embedding), ended.lengths)
        return torch.cat([*last], -1)


class RecurrentDecoder(Decoder):
    """l_jt = E (A h_jt + m_j) + c for each head, h_jt = GRU(h_j,t-1, x_j,t-1), with the topic m_j = tanh(B z_j + b).

    h_j0 is tanh of a linear function of z_j. E is a table of output embeddings (n_tokens + 1, width), with ``tied_to``
    an encoder its own. What z says of all words alike need not pass through the units: the topic adds to the logits
    what a decoder of bags of words would say.
    """

    def __init__(
        self,
        n_tokens: int,
        n_factors: int,
        width: int,
        heads: Sequence[str] = ("logits",),
        tied_to: BagEncoder | None = None,
    ) -> None:
        super().__init__()
        self.n_tokens, self.heads = n_tokens, tuple(heads)
        self.told = nn.Parameter(0.1 * torch.randn(n_tokens + 2, width))
        self.begin = nn.Linear(n_factors, width)
        self.inner = nn.Linear(n_factors, width)
        self.gru = nn.GRU(width, width, batch_first=True)
        self.mix = nn.Linear(width, width, bias=False)
        self.outputs, self.output_biases = nn.ParameterDict(), nn.ParameterDict()
        for index, head in enumerate(heads):
            free = tied_to is None or index > 0
            table = 0.1 * torch.randn(n_tokens + 1, width)
            self.outputs[head] = nn.Parameter(table) if free else tied_to.embedding  # type: ignore[union-attr]
            self.output_biases[head] = nn.Parameter(torch.zeros(n_tokens + 1))

    def forward(self, z: Tensor, columns: Tensor | None = None) -> dict[str, Tensor]:
        """Parameters of the first token, (n_items, n_tokens + 1)."""
        if columns is not None:
            raise NotImplementedError("a sequence has no features to choose from")
        none = torch.zeros(0, dtype=torch.int64, device=z.device)
        return self.given(z, TokenRows(none.new_zeros(len(z) + 1), none, self.n_tokens))

    def given(self, z: Tensor, content: AnyRows) -> dict[str, Tensor]:
        """Parameters of every token given those before it, and of the end, (n_positions, n_tokens + 1)."""
        assert isinstance(content, TokenRows)
        if not len(content):
            return {head: table.new_zeros(0, self.n_tokens + 1) for head, table in self.outputs.items()}
        begun = content.begun()
        tokens, _ = begun.padded()
        states, _ = run(self.gru, F.embedding(tokens, self.told), begun.lengths, self._begin(z))
        return self._params(states, self.topic(z)[begun.rows])

    @torch.no_grad()
    def draw(self, likelihood: ContentLikelihood, z: Tensor, like: AnyRows) -> TokenRows:
        """Sequences token by token, each until its end (ancestral sampling); nothing of ``like`` is given."""
        own: Any = likelihood
        going = torch.arange(len(z), device=z.device)
        state, topic = self._begin(z), self.topic(z)
        tokens = torch.full_like(going, self.n_tokens)
        drawn_rows, drawn = [going[:0]], [tokens[:0]]
        for _ in range(LONGEST_DRAW):
            if not len(going):
                break
            outputs, state = self.gru(F.embedding(tokens, self.told)[:, None], state)
            tokens = own.draw_next(self._params(outputs[:, 0], topic[going]))
            goes_on = tokens < self.n_tokens
            going, tokens, state = going[goes_on], tokens[goes_on], state[:, goes_on]
            drawn_rows.append(going)
            drawn.append(tokens)
        if len(going):
            raise InputError(f"a drawn sequence has more than {LONGEST_DRAW:,} tokens", "train the decoder longer")
        rows, found = torch.cat(drawn_rows), torch.cat(drawn)
        order = rows.argsort(stable=True)
        lengths = torch.bincount(rows, minlength=len(z))
        return TokenRows(torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]), found[order], self.n_tokens)

    def _begin(self, z: Tensor) -> Tensor:
        return torch.tanh(self.begin(z))[None]

    def topic(self, z: Tensor) -> Tensor:
        """What z says of all words of a sequence alike, (n_items, width)."""
        return torch.tanh(self.inner(z))

    def _params(self, states: Tensor, topic: Tensor) -> dict[str, Tensor]:
        h = self.mix(states) + topic
        return {head: F.linear(h, self.outputs[head], self.output_biases[head]) for head in self.heads}


class RecurrentPair(NetworkPair):
    """Gated recurrent units both ways, as wide as the last of ``hidden``."""

    reads: ClassVar[tuple[str, ...]] = READS

    def make(self, form: Form, heads: Sequence[str], options: Any) -> tuple[RecurrentEncoder, RecurrentDecoder]:
        """Both networks for a vocabulary of this size, at a random start."""
        o, width = options, options.hidden[-1]
        encoder = RecurrentEncoder(form.n_features, o.factors, width, o.radius)
        return encoder, RecurrentDecoder(form.n_features, o.factors, width, heads, encoder if o.tied else None)

    def start(self, encoder: Any, decoder: Any, start: Start) -> None:
        """See :func:`start_recurrent`."""
        start_recurrent(encoder, decoder, start)


@torch.no_grad()
def start_recurrent(encoder: BagEncoder, decoder: RecurrentDecoder, start: Start) -> None:
    """Start from what a bag of the tokens says, whatever else the encoder reads being of no weight yet.

    Embeddings are the leading right singular vectors of tf-idf weighted counts, sigma is 1/2. The decoder starts near
    the tokens' frequencies, with a topic that varies. In "whitened" s has variance 1 over items in each direction, and
    mu mixes them at random to mean 0 and variance 1; in "svd" mu is s itself, at one common scale.
    """
    content: TokenRows = start.content
    counts = content.counts()
    parts = (counts.values.cpu().double().numpy(), counts.columns.cpu().numpy(), counts.indptr.cpu().numpy())
    transformer = TfidfTransformer(sublinear_tf=True)
    matrix = transformer.fit_transform(sparse.csr_matrix(parts, shape=tuple(counts.shape)))
    table = encoder.embedding
    n_components = min(table.shape[1], min(matrix.shape) - 1)
    seed = int(torch.randint(2**31 - 1, ()))
    table.zero_()
    if n_components:
        singular, right = leading_directions(matrix, n_components, 2, seed)
        n_components, right = rank(singular), right[: rank(singular)]
        table[:-1, :n_components] = torch.as_tensor((right * transformer.idf_).T.copy()).to(table)
    chosen = start.some()
    as_is = start.how == "svd"
    mix = nn.init.eye_ if as_is else nn.init.orthogonal_

    table.div_(spread(encoder.bag(content.select(chosen)), alike=as_is))
    mix(decoder.inner.weight)
    nn.init.zeros_(decoder.inner.bias)
    z = torch.randn(4096, decoder.inner.in_features).to(table)
    decoder.inner.weight.div_(spread(decoder.inner(z))[:, None])
    table.div_((decoder.topic(z[:200]) @ table.mT).std().clamp(min=1e-6))  # logits vary by 1 with z
    bag = encoder.bag(content.select(chosen))
    width = table.shape[1]
    for head in (encoder.loc, encoder.log_variance):
        head.weight.zero_()
        head.bias.zero_()
    loc = mix(torch.empty(width, encoder.loc.out_features).to(table))
    loc.div_(spread(bag @ loc, alike=as_is, size=1.0) * (2.0 if as_is else 1.0))
    encoder.loc.weight[:, :width] = loc.mT
    if not as_is:
        encoder.loc.bias.copy_(-(bag @ loc).mean(0))
    encoder.log_variance.bias.fill_(2 * torch.tensor(0.5).log())

    decoder.mix.weight.mul_(0.1)
    ends = content.ended()
    total = table.new_full((content.n_tokens + 1,), 0.1).index_add(
        0, ends.tokens, torch.ones_like(ends.tokens, dtype=table.dtype)
    )
    tied = {id(parameter) for parameter in encoder.parameters()}
    for name, begin in start.likelihood.initial_bias(total / len(content)).items():
        if id(decoder.outputs[name]) not in tied:
            decoder.outputs[name].copy_(table)
        decoder.output_biases[name].copy_(begin)
