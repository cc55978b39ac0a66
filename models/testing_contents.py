"""The conformance kit for likelihoods of sequences and for products: second computations of their own kind.

Sequences are scored by a small recurrent decoder one token at a time and, of short ones, all there are are enumerated;
of a product the parts are scored one by one.
"""

from __future__ import annotations

import itertools
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import constraints

from models.contents import ContentLikelihood
from models.contents.product import of_part
from models.networks.base import Decoder
from models.networks.making import make_networks
from models.rows import AnyRows, Form, Forms, PartRows, SparseRows, TokenRows
from models.testing_base import ANOTHER, KEEP, N_DRAWS, Kit, moved, quantile
from models.testing_inputs import ASKED, texts
from pyro_cvae.errors import InputError

N_ITEMS, N_FACTORS, N_TOKENS = 7, 3, 4
LENGTHS = (3, 0, 1, 5, 30, 1, 12)


class Options:
    """Model options of the small networks, which share nothing, so that each gradient is a head's own."""

    factors, hidden, activation, tied, radius, network = N_FACTORS, (4,), "tanh", False, 0.0, "auto"


class ContentKit(Kit):
    """What both kits share: a likelihood at a small decoder with random weights, and content of its own."""

    def __init__(self, cls: type[ContentLikelihood], arguments: dict[str, Any]) -> None:
        super().__init__(cls, arguments)
        self.decoder: Any = self.networks()
        self.z = torch.randn(N_ITEMS, N_FACTORS)
        self.obs = self.content()

    def form(self) -> Forms:
        """The form of its content."""
        raise NotImplementedError

    def content(self) -> AnyRows:
        """Content of N_ITEMS items."""
        raise NotImplementedError

    def networks(self) -> Decoder:
        """The decoder that the package makes for it, at random weights and biases."""
        _, decoder = make_networks(self.form(), self.likelihood, Options)
        moved(decoder, 0.4)
        return decoder

    def log_prob(self, obs: Any, z: Tensor) -> Tensor:
        """Log p(x | z) with the decoder's own parameters."""
        return self.likelihood.log_prob(obs, self.decoder.given(z, obs))

    def shapes_and_minibatches(self) -> None:
        """One value an item, the same in any minibatch."""
        whole = self.log_prob(self.obs, self.z)
        self.require(
            whole.shape == (N_ITEMS,),
            f"log_prob has shape {tuple(whole.shape)} for {N_ITEMS} items, not ({N_ITEMS},)",
            "sum over what belongs to an item and over nothing else",
        )
        self.require(torch.isfinite(whole).all(), "log_prob is not finite", "look for log(0)")
        for chosen in ([0], [1], [N_ITEMS - 1], [2, 5, 6], list(reversed(range(N_ITEMS)))):
            rows = torch.tensor(chosen)
            part = self.log_prob(self.obs.select(rows), self.z[rows])
            self.close(
                part,
                whole[rows],
                f"log_prob of a minibatch of {len(rows)} is not that of the same items among all {N_ITEMS}",
                "an item's value must not depend on the others",
            )

    def plates(self) -> None:
        """A plate scales it from the minibatch to all items."""
        rows, n_items = torch.tensor([1, 3, 4]), 4 * N_ITEMS
        obs, z = self.obs.select(rows), self.z[rows]

        def model() -> None:
            with pyro.plate("items", n_items, subsample=rows):
                pyro.sample("x", self.likelihood.conditional(self.decoder, z, obs, sampled=False), obs=obs)

        site = poutine.trace(model).get_trace()
        site.compute_log_prob()
        wanted = self.log_prob(obs, z).sum() * (n_items / len(rows))
        self.close(
            site.nodes["x"]["log_prob_sum"],
            wanted,
            "a Pyro plate does not scale it from a minibatch to all items",
            "leave scales to the plate",
        )

    def gradients(self) -> None:
        """Gradients reach every weight of the decoder and every parameter of the likelihood."""
        for name, value in vars(self.likelihood).items():
            if isinstance(value, Tensor) and value.requires_grad:
                self.fail(f"{name} is a plain tensor, which no optimiser and no run knows", "make it an nn.Parameter")
        wanted = {f"the decoder's {name}": p for name, p in self.decoder.named_parameters()}
        wanted |= {f"its parameter {name}": p for name, p in self.likelihood.named_parameters()}
        total = self.log_prob(self.obs, self.z).sum()
        if not total.requires_grad:
            self.fail("no gradient leaves log_prob", "compute with tensors only: no .detach(), .item() or torch.tensor")
        found = torch.autograd.grad(total, list(wanted.values()), allow_unused=True)
        for what, gradient in zip(wanted, found, strict=True):
            if gradient is None or not bool(gradient.any()):
                self.fail(f"no gradient reaches {what}", "use it in log_prob, without .detach() or .item(), or drop it")
            self.require(torch.isfinite(gradient).all(), f"the gradient of {what} is not finite", "look for log(0)")

    def saved_and_loaded(self) -> None:
        """Arguments, parameters and buffers are all there is to know."""
        self.likelihood.start(2.5)
        with torch.no_grad():
            for parameter in self.likelihood.parameters():
                parameter.add_(0.1)
        wanted = self.log_prob(self.obs, self.z)
        for copy in (self.copied(), self.reloaded()):
            found = copy.log_prob(self.obs, self.decoder.given(self.z, self.obs))
            self.require(torch.equal(found, wanted), ANOTHER, KEEP)

    def single_precision(self) -> None:
        """The same in float32."""
        wanted = self.log_prob(self.obs, self.z)
        self.likelihood.float()
        self.decoder.float()
        found = self.log_prob(self.obs.to(dtype=torch.float32), self.z.float())
        self.require(
            found.dtype == torch.float32,
            f"log_prob of float32 parameters has the type {found.dtype}",
            "make new tensors with new_zeros or zeros_like of the parameters",
        )
        self.close(found.double(), wanted, "log_prob in float32 is far from float64", "sum in a stable order", 1e-3)


class SequenceKit(ContentKit):
    """A likelihood of tokens."""

    def run(self) -> None:
        """All checks, from the ones that others rely on to the subtle ones."""
        self.parameters()
        self.shapes_and_minibatches()
        self.plates()
        self.step_by_step()
        self.normaliser()
        self.gradients()
        self.draws()
        self.saved_and_loaded()
        self.single_precision()

    def form(self) -> Forms:
        """A vocabulary of N_TOKENS."""
        return Form("tokens", (N_TOKENS,))

    def content(self) -> TokenRows:
        """Sequences of different lengths, one of them empty."""
        return TokenRows.from_lists([torch.randint(N_TOKENS, (n,)).tolist() for n in LENGTHS], N_TOKENS)

    def parameters(self) -> None:
        """Initial biases fit the heads."""
        mean = torch.full((N_TOKENS + 1,), 0.2)
        for name, bias in self.likelihood.initial_bias(mean).items():
            if name not in self.likelihood.param_names:
                self.fail(f"initial_bias names {name!r}", "return biases of heads in param_names only")
            if bias.shape != mean.shape or not bool(torch.isfinite(bias).all()):
                self.fail(
                    f"initial_bias of {name!r} is not ({N_TOKENS + 1},) finite numbers", "one a token and the end"
                )

    def step_by_step(self) -> None:
        """Teacher forcing of all sequences at once is one token at a time, each sequence alone."""
        whole = self.log_prob(self.obs, self.z)
        for item in range(N_ITEMS):
            tokens = self.obs.select(torch.tensor([item])).tokens.tolist()  # type: ignore[union-attr]
            z, total = self.z[[item]], torch.zeros(())
            for place, token in enumerate([*tokens, N_TOKENS]):
                before = TokenRows.from_lists([tokens[:place]], N_TOKENS)
                params = {name: value[-1:] for name, value in self.decoder.given(z, before).items()}
                total = total + self.likelihood.distribution(**params).log_prob(torch.tensor([token])).sum()
            self.close(
                whole[item],
                total,
                "log_prob is not the sum over tokens, and the end, of distribution's log_prob given those before",
                "score every token and the end (obs.ended()), each by the parameters at its own place",
            )

    def normaliser(self) -> None:
        """The masses of all sequences shorter than n and, behind them, of all beginnings of n tokens sum to one."""
        if self.likelihood.pseudo:
            return
        longest = 4
        z = self.z[:1]
        every = [list(one) for n in range(longest) for one in itertools.product(range(N_TOKENS), repeat=n)]
        begun = [list(one) for one in itertools.product(range(N_TOKENS), repeat=longest)]
        with torch.no_grad():
            rows = TokenRows.from_lists(every, N_TOKENS)
            mass = self.log_prob(rows, z.expand(len(every), -1)).exp().sum()
            rows = TokenRows.from_lists(begun, N_TOKENS)
            ends = self.decoder.given(z.expand(len(begun), -1), rows)
            last = {name: value[longest :: longest + 1] for name, value in ends.items()}
            end = self.likelihood.distribution(**last).log_prob(torch.full((len(begun),), N_TOKENS))
            mass = mass + (self.log_prob(rows, z.expand(len(begun), -1)) - end).exp().sum()
        self.require(
            abs(float(mass) - 1) < 1e-9,
            f"p(x) sums to {float(mass):.6g} over all sequences, not to 1",
            "add the normaliser to log_prob and to distribution, and score the end, or set pseudo = True",
        )

    def draws(self) -> None:
        """Frequencies of the sequences of up to two tokens, and of longer ones, among draws, two-sided."""
        kinds = [list(one) for n in range(3) for one in itertools.product(range(N_TOKENS), repeat=n)]
        with torch.no_grad():
            rows = TokenRows.from_lists(kinds, N_TOKENS)
            bound = quantile(2 * (len(kinds) + 1))
            for z in (self.z[:1], self.z[1:2]):
                p = self.log_prob(rows, z.expand(len(kinds), -1)).exp()
                p = torch.cat([p, (1 - p.sum()).clamp(0, 1)[None]])
                drawn = self.decoder.draw(self.likelihood, z.expand(N_DRAWS, -1), self.obs)
                if not isinstance(drawn, TokenRows) or len(drawn) != N_DRAWS:
                    self.fail("a draw is no TokenRows of as many items", "draw_next gives a token for each row")
                code = {tuple(kind): index for index, kind in enumerate(kinds)}
                counts = torch.zeros(len(kinds) + 1)
                for start, stop in itertools.pairwise(drawn.indptr.tolist()):
                    short = stop - start < 3
                    counts[code[tuple(drawn.tokens[start:stop].tolist())] if short else -1] += 1
                off = (counts / N_DRAWS - p).abs() / (p * (1 - p) / N_DRAWS).sqrt().clamp(min=1e-12)
                self.require(
                    (off < bound).all(),
                    f"the frequencies of {N_DRAWS} drawn sequences are {float(off.max()):.1f} standard errors off "
                    f"their probabilities, above {bound:.1f}",
                    "let draw_next draw from distribution",
                )


class ProductKit(ContentKit):
    """A product, of parts that some items lack."""

    def run(self) -> None:
        """All checks, from the ones that others rely on to the subtle ones."""
        self.shapes_and_minibatches()
        self.parts()
        self.plates()
        self.gradients()
        self.draws()
        self.saved_and_loaded()
        self.single_precision()

    def each(self) -> list[tuple[str, ContentLikelihood]]:
        """The parts by name."""
        return self.likelihood.each()

    def form(self) -> Forms:
        """Words for likelihoods of numbers, else tokens."""
        return {
            name: Form("words", (5,)) if "words" in part.reads else Form(part.reads[0], _size(part.reads[0]))
            for name, part in self.each()
        }

    def content(self) -> PartRows:
        """Of each part a draw for two thirds of the items, of texts of different lengths; one item has none of them."""
        parts: dict[str, Any] = {}
        present = {}
        for place, (name, part) in enumerate(self.each()):
            there = (torch.arange(N_ITEMS) + place) % 3 != 0
            there[1] = False
            present[name] = there
            form = self.form()[name]  # type: ignore[index]
            n = int(there.sum())
            like: Any = (
                TokenRows.from_lists([[0]] * n, form.n_features)
                if form.kind == "tokens"
                else SparseRows.from_dense(self.asked(part, n, form.n_features))
            )
            decoder = self.decoder.part(name)
            with torch.no_grad():
                parts[name] = decoder.draw(part, self.z[there], like)
        found = PartRows(parts, present)
        self.likelihood.check(found)
        return found

    @staticmethod
    def asked(part: ContentLikelihood, n: int, n_features: int) -> Tensor:
        """Texts of 9, 1, 4, ... words, those of one word where a part takes no others, (n, n_features)."""
        rows = texts(tuple(itertools.islice(itertools.cycle(ASKED), n)), n_features)
        try:
            part.check(SparseRows.from_dense(rows))
        except InputError:
            return torch.eye(n_features)[torch.arange(n) % n_features]
        return rows

    def parts(self) -> None:
        """The sum over the parts that are there, each by itself; an item that has none has 0."""
        whole, obs = self.log_prob(self.obs, self.z), self.obs
        assert isinstance(obs, PartRows)
        params = self.decoder.given(self.z, obs)
        wanted = torch.zeros(N_ITEMS)
        for name, part in self.each():
            for place, item in enumerate(obs.items(name).tolist()):
                alone = obs.parts[name].select(torch.tensor([place]))
                own = self.decoder.part(name).given(self.z[[item]], alone)
                wanted[item] += part.log_prob(alone, own).squeeze().detach()
            self.require(len(of_part(params, name)) > 0, f"the part {name} has no heads", "give it param_names")
        remedy = "add each part's log_prob to the items that have it, and nothing to the others"
        self.close(whole.detach(), wanted, "log_prob is not the sum over the parts that are there", remedy)
        self.require(whole[1] == 0, "an item that has none of the parts has a log_prob", remedy)

    def draws(self) -> None:
        """A draw has the parts of what it is like, each as its own likelihood draws it."""
        with torch.no_grad():
            drawn = self.likelihood.conditional(self.decoder, self.z, self.obs, sampled=False).sample()
        assert isinstance(self.obs, PartRows)
        same = isinstance(drawn, PartRows) and all(
            len(drawn.parts[name]) == len(part) and torch.equal(drawn.present[name], self.obs.present[name])
            for name, part in self.obs.parts.items()
        )
        self.require(same, "a draw has other parts than what it is like", "draw the parts that are there")
        self.likelihood.check(drawn)
        assert isinstance(drawn, PartRows)
        for name, part in self.each():
            own, asked = drawn.parts[name], self.obs.parts[name]
            if not isinstance(own, SparseRows) or not isinstance(asked, SparseRows):
                continue
            params = self.decoder.part(name).given(self.z[self.obs.items(name)], asked)
            support: Any = part.distribution(**params).support
            if isinstance(support, type(constraints.multinomial(1))) and not torch.equal(own.totals, asked.totals):
                self.fail(f"a draw of the part {name} has texts of other lengths", "pass on what each part is like")


def _size(kind: str) -> tuple[int, ...]:
    return {"tokens": (N_TOKENS,), "images": (1, 4, 4)}.get(kind, (5,))
