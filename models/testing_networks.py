"""The conformance kit's part for networks: does a pair of one's own keep the contract?

from models.testing import check_network
check_network(MyPair, rate=0.1)
"""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor

from models.contents.making import content_class
from models.networks import Decoder, Encoder, NetworkPair, Start
from models.rows import DenseRows, Form, OneRows, SparseRows, TokenRows
from models.state import fill, kept
from models.testing_base import in_float64
from pyro_cvae.errors import InputError

N_ITEMS, N_FACTORS = 6, 3
FORMS = {
    "words": Form("words", (11,)),
    "vectors": Form("vectors", (7,)),
    "images": Form("images", (2, 8, 8)),
    "tokens": Form("tokens", (9,)),
}
LIKELIHOODS = {"words": "negative-binomial", "vectors": "normal", "images": "normal", "tokens": "tokens"}
"""For each kind of content, a likelihood of the package that the pair is tried with."""


class _Options:
    """Model options as a pair reads them."""

    factors, hidden, activation, radius, tied = N_FACTORS, (6, 5), "tanh", 0.0, True


def check_network(pair: type[NetworkPair], /, *, seed: int = 0, **arguments: Any) -> None:
    """Raise AssertionError unless a class of network pairs, built with ``arguments``, keeps its contract.

    - reads: kinds of content that there are, and the encoder reads them;
    - encoder: means and standard deviations (n_items, n_factors), the latter above 0, of float64 and float32; no item's
      depends on those beside it;
    - decoder: a tensor for every head asked for; ``columns`` are those of the whole, ``at`` its single cells (but for
      tokens); the likelihood takes them;
    - gradients reach every parameter of both;
    - start: it leaves finite numbers, and the next start from the same random state is the same;
    - saved and loaded: a fresh pair with the same parameters and buffers says the same.
    """
    if not (isinstance(pair, type) and issubclass(pair, NetworkPair)):
        raise AssertionError(f"{pair}: this is no class of pairs; derive it from models.networks.NetworkPair")
    kinds = getattr(pair, "reads", ())
    if not kinds or isinstance(kinds, str) or set(kinds) - FORMS.keys():
        raise AssertionError(f"{pair.__name__}: reads is {kinds!r}; name kinds of {', '.join(FORMS)}, as a tuple")
    with in_float64(seed):
        for kind in kinds:
            _NetworkKit(pair, arguments, kind).run()


class _NetworkKit:
    """A pair for one kind of content; every failure is an AssertionError with its remedy."""

    def __init__(self, cls: type[NetworkPair], arguments: dict[str, Any], kind: str) -> None:
        self.cls, self.arguments, self.kind = cls, arguments, kind
        self.likelihood = content_class(LIKELIHOODS[kind])()
        self.rows = rows_of(kind)
        self.pair, self.encoder, self.decoder = self.made()

    def made(self) -> tuple[NetworkPair, Encoder, Decoder]:
        """A fresh pair, at a random start."""
        try:
            pair = self.cls(**self.arguments)
            encoder, decoder = pair.make(FORMS[self.kind], self.likelihood.param_names, _Options)
        except (TypeError, ValueError, RuntimeError, AttributeError, InputError) as error:
            self.fail(f"cannot be made ({type(error).__name__}: {error})", "take form, heads and options as told")
        if not (isinstance(encoder, Encoder) and isinstance(decoder, Decoder)):
            self.fail("make gives other classes", "derive both from models.networks.Encoder and Decoder")
        return pair, encoder.double(), decoder.double()

    def run(self) -> None:
        """All checks."""
        if self.kind not in self.encoder.reads:
            self.fail(f"its encoder reads {', '.join(self.encoder.reads)}", "name the kinds of the pair there too")
        self.encoded()
        self.decoded()
        self.gradients()
        self.started()
        self.saved()

    def encode(self, encoder: Encoder, rows: OneRows) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, of whatever the encoder gives."""
        try:
            loc, scale = encoder(rows)
        except Exception as error:
            self.fail(f"its encoder fails on {len(rows)} items ({type(error).__name__}: {error})", "take any number")
        return loc, scale

    @torch.no_grad()
    def encoded(self) -> None:
        """Shapes, positive spreads, items by themselves."""
        loc, scale = self.encode(self.encoder, self.rows)
        for name, value in (("means", loc), ("standard deviations", scale)):
            if tuple(value.shape) != (N_ITEMS, N_FACTORS):
                self.fail(f"its {name} have shape {tuple(value.shape)}", f"give {(N_ITEMS, N_FACTORS)}")
        if not bool((scale > 0).all()):
            self.fail("a standard deviation is 0 or less", "give exp or softplus of what the network says")
        some = torch.tensor([4, 1])
        for value, alone in zip((loc, scale), self.encode(self.encoder, self.rows.select(some)), strict=True):
            if not torch.allclose(alone, value[some], rtol=1e-9, atol=1e-9):
                self.fail("what it says of an item depends on the items beside it", "let no batch statistics in")
        single, _ = self.encode(self.encoder.float(), self.rows.to(dtype=torch.float32))
        self.encoder.double()
        if single.dtype != torch.float32 or loc.dtype != torch.float64:
            self.fail(f"its numbers are {single.dtype} of float32 parameters", "make tensors like its parameters")

    def decoded(self) -> None:
        """Heads, single features and cells."""
        z = torch.randn(N_ITEMS, N_FACTORS)
        if self.kind == "tokens":
            value = self.likelihood.log_prob(self.rows, self.decoder.given(z, self.rows))
            if tuple(value.shape) != (N_ITEMS,):
                self.fail(f"log p of sequences has shape {tuple(value.shape)}", "give a logit for each next token")
            return
        params, n_features = self.decoder(z), FORMS[self.kind].n_features
        heads = self.likelihood.param_names
        if set(params) != set(heads):
            self.fail(f"its decoder has the heads {', '.join(params)}", f"make those asked for, {', '.join(heads)}")
        for name, value in params.items():
            if tuple(value.shape) != (N_ITEMS, n_features):
                self.fail(f"{name} has shape {tuple(value.shape)}", f"give {(N_ITEMS, n_features)}")
        columns = torch.tensor([5, 0, 2])
        cells, drawn = self.decoder.at(z, torch.tensor([3, 1, 1]), columns, columns)
        for name, value in params.items():
            some = self.decoder(z, columns)[name]
            single = value[torch.tensor([3, 1, 1]), columns]
            for ours, wanted in ((some, value[:, columns]), (drawn[name], value[:, columns]), (cells[name], single)):
                if not torch.allclose(ours, wanted, rtol=1e-9, atol=1e-9):
                    self.fail("columns or at give other numbers than all features", "leave at out, or mend it")
        self.likelihood.log_prob(self.rows, params)

    def gradients(self) -> None:
        """They reach every parameter."""
        loc, scale = self.encode(self.encoder, self.rows)
        z = loc + scale * torch.randn_like(loc)
        value = self.likelihood.log_prob(self.rows, self.decoder.given(z, self.rows)).sum() - scale.log().sum()
        parameters = dict([*self.encoder.named_parameters(), *self.decoder.named_parameters()])
        slopes = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
        for name, slope in zip(parameters, slopes, strict=True):
            if slope is None or not bool(slope.isfinite().all()):
                self.fail(f"no finite gradient reaches {name}", "leave it out, or use it")

    @torch.no_grad()
    def started(self) -> None:
        """The start from the data is finite and a matter of the random state alone."""
        said = []
        for _ in range(2):
            torch.manual_seed(1)
            pair, encoder, decoder = self.made()
            try:
                pair.start(encoder, decoder, Start(self.rows, self.rows, self.likelihood, sample=N_ITEMS))
            except (TypeError, ValueError, RuntimeError, AttributeError) as error:
                self.fail(f"its start fails ({type(error).__name__}: {error})", "take encoder, decoder and a Start")
            loc, _ = self.encode(encoder, self.rows)
            if not bool(loc.isfinite().all()):
                self.fail("after start the means are no finite numbers", "look at features that never vary")
            said.append(loc)
        if not torch.equal(*said):
            self.fail("start is another with the same random state", "draw from torch's random state alone")

    @torch.no_grad()
    def saved(self) -> None:
        """A fresh pair with the same parameters and buffers says the same."""
        _, encoder, decoder = self.made()
        z = torch.randn(N_ITEMS, N_FACTORS)
        fill(encoder, kept(self.encoder))
        fill(decoder, kept(self.decoder))
        same = torch.equal(self.encode(encoder, self.rows)[0], self.encode(self.encoder, self.rows)[0])
        if self.kind != "tokens":
            ours, theirs = decoder(z), self.decoder(z)
            same = same and all(torch.equal(ours[name], theirs[name]) for name in theirs)
        if not same:
            self.fail("a copy with its parameters and buffers is another", "keep tensors in nn.Parameter or buffers")

    def fail(self, problem: str, remedy: str) -> NoReturn:
        """Raise an AssertionError of this pair."""
        raise AssertionError(f"{self.cls.__name__}, of {self.kind}: {problem}; {remedy}")


def rows_of(kind: str) -> OneRows:
    """Content of a kind that the kit makes itself, N_ITEMS rows."""
    form = FORMS[kind]
    if kind == "tokens":
        return TokenRows.from_lists([torch.randint(form.n_features, (n,)).tolist() for n in (4, 1, 6, 0, 3, 2)], 9)
    if kind == "words":
        return SparseRows.from_dense(torch.poisson(torch.full((N_ITEMS, form.n_features), 0.8)))
    return DenseRows.from_numpy(torch.randn(N_ITEMS, *form.size).numpy(), torch.float64)
