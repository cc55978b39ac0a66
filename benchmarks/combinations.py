"""Every combination of likelihoods, networks and algorithms on its own data: ``python -m benchmarks.combinations``.

The list is made from the package's own tables (``models.catalogue``, ``inference.options``): each likelihood of
contents with each kind of content that it reads and each network that reads that kind, each likelihood of ratings, each
inference module with each mode and guide. ``Options.of`` says which are compatible. Of those, data are drawn from the
Pyro program of that very combination: z, then x by a decoder at random weights, scaled so that its heads vary as much
as SPREAD says, then u, v and the ratings by their likelihoods' own draws. A quarter of the cells of four fifths of the
items is seen; the fit is told the precisions, and nothing else. Correlations of true scores with posterior means: over
cells that were not seen, of items with seen cells ("warm") and of items without any, whose content alone is known
("cold"). A combination below its floor fails the command.

Of what is incompatible every message is listed once, with the seconds that the real command takes to give it.
"""

from __future__ import annotations

import csv
import itertools
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from pyro import poutine

from benchmarks.study.arguments import as_command, command, compute_with
from benchmarks.study.tables import show
from inference.compatibility import PRODUCT
from inference.fitting import Fit, Pretrained, fit_with
from inference.options import METHODS, Options
from models.build import content_likelihood, forms_of, make_model, observe
from models.catalogue import CONTENTS, NETWORKS, RATINGS
from models.rows import PartRows, TokenRows
from pyro_cvae.data.content import Content
from pyro_cvae.data.contents import AnyContent, Images, Tokens, Vectors
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.interactions import Interactions
from pyro_cvae.data.splits import Split
from pyro_cvae.errors import InputError

N_USERS, N_ITEMS, N_FACTORS = 150, 250, 3
N_FEATURES, SIDE = 40, 8
N_CATEGORIES, SMALL_SIDE = 8, 4
"""Of categorical contents, of which 250 items would otherwise show too few of each."""
COLD, SEEN = 0.2, 0.25
"""Shares of items without seen cells, and of seen cells of the others."""
SPREAD, MEAN = 1.5, 0.3
"""Standard deviation of the decoder's heads over items, in units of the noise if that is Normal, and mean of x where
they are at rest; of Normal contents it is five standard deviations of the noise, so that few are below 0."""
MODEL: dict[str, Any] = {
    **{"factors": N_FACTORS, "hidden": (20,), "activation": "tanh", "tied": False, "encoder_input": "same"},
    **{"a": 1.0, "b": 0.1, "lambda_u": 2.0, "lambda_v": 5.0, "lambda_b": 4.0},
    **{"pretrain_epochs": 150, "batch_size": 125},
    **{"scaling": "none", "threads": 1},
}
HOW: dict[str, dict[str, Any]] = {
    "coordinate": {"epochs": 3, "sweeps": 10},
    "svi": {"epochs": 80, "factor_learning_rate": 0.1},
    "mcmc": {"draws": 50, "warmup": 50, "chains": 2},
}
ARGUMENTS: dict[tuple[str, str], dict[str, Any]] = {("normal", "images"): {"lambda_x": 100.0}}
"""Of a content of a kind; noise of standard deviation 0.1, so that pixels stay within their range."""
PARTS = {"words": "multinomial", "vectors": "normal", "images": "bernoulli", "tokens": "tokens"}
"""Of a product: one content of each kind, which a third of the items lacks."""
MODES = {"map": {"mode": "map"}, "bayes": {"mode": "bayes"}, "structured": {"mode": "bayes", "guide": "structured"}}
WARM_FLOOR, COLD_FLOOR, WEAK_FLOOR = 0.5, 0.4, 0.4
"""The last is of warm items with categorical content. A category says so little of an item that cold ones have none."""


@dataclass(frozen=True)
class Case:
    """One combination by its names."""

    content: str
    kind: str
    network: str
    rating: str
    method: str
    mode: str

    @property
    def data(self) -> tuple[str, str, str, str]:
        """What the simulated data depend on."""
        return self.content, self.kind, self.network, self.rating

    def arguments(self) -> dict[str, Any]:
        """The options of the content."""
        if self.content != PRODUCT:
            return {"content": self.kind, "content_likelihood_args": ARGUMENTS.get((self.content, self.kind), {})}
        each = {kind: ARGUMENTS.get((part, kind), {}) for kind, part in PARTS.items()}
        named = {f"{kind}.{key}": value for kind, own in each.items() for key, value in own.items()}
        return {"content_likelihood_args": PARTS | named}

    def options(self) -> Options:
        """All options of the fit; InputError if they are incompatible."""
        chosen = {"content_likelihood": self.content, "network": self.network, "rating_likelihood": self.rating}
        if self.method == "mcmc":
            chosen["biases"] = "off"
        return Options.of(self.method, **MODEL, **chosen, **self.arguments(), **MODES[self.mode], **HOW[self.method])


def cases() -> Iterator[Case]:
    """Every combination of the tables' names, compatible or not; a product has all kinds and each its own network."""
    assert set(PARTS) == {kind for facts in CONTENTS.values() for kind in facts.reads}, "a kind without a part"
    rest = list(itertools.product(RATINGS, METHODS, MODES))
    for content, facts in CONTENTS.items():
        for kind, network in itertools.product(facts.reads, NETWORKS) if content != PRODUCT else [("all", "auto")]:
            for rating, method, mode in rest:
                yield Case(content, kind, network, rating, method, mode)


def compatible(case: Case) -> str:
    """Why a combination is refused, or nothing."""
    try:
        options = case.options()
        if case.content != PRODUCT:
            rng, present = np.random.default_rng(0), np.ones(N_ITEMS, bool)
            options.for_contents({case.kind: blank(case.kind, present, case.content == "categorical", rng)})
    except InputError as error:
        return str(error)
    return ""


def blank(kind: str, present: np.ndarray, one_hot: bool, rng: np.random.Generator) -> AnyContent:
    """A content of this kind in the support of its likelihood: what gives the lengths of texts."""
    n, n_features = len(present), N_CATEGORIES if one_hot else N_FEATURES
    side = SMALL_SIDE if one_hot else SIDE
    if kind == "tokens":
        lengths = np.where(present, 8, 0)
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        names = ("<unknown>", *(f"t{number}" for number in range(1, N_FEATURES)))
        return Tokens(indptr, rng.integers(N_FEATURES, size=indptr[-1]).astype(np.int32), names, present)
    size = side**2 if kind == "images" else n_features
    values = np.eye(size)[rng.integers(size, size=n)] if one_hot else rng.random((n, size)) < MEAN
    return as_content(kind, values * present[:, None], present)


def as_content(kind: str, values: np.ndarray, present: np.ndarray) -> AnyContent:
    """Numbers (n_items, n_features) as a content: words are at least 0, pixels at most 1 besides."""
    if kind == "words":
        return Content(sp.csr_matrix(np.asarray(values, float).clip(0)), given=present)
    if kind == "images":
        side = math.isqrt(values.shape[1])
        return Images(values.clip(0, 1).reshape(-1, 1, side, side).astype(np.float32), present)
    return Vectors(values.astype(np.float32), present)


@torch.no_grad()
def enliven(decoder: torch.nn.Module, likelihood: Any, rows: Any, generator: torch.Generator) -> None:
    """Give a decoder random weights at which its heads vary by SPREAD over items, around a mean of MEAN.

    All weights but the biases are multiplied by one factor, found by bisection.
    """
    weights = [(p, torch.randn(p.shape, generator=generator).to(p) / p.shape[-1] ** 0.5) for p in decoder.parameters()]
    z = torch.randn(len(rows), N_FACTORS, generator=generator).to(weights[0][0])
    n_features = rows.n_tokens + 1 if isinstance(rows, TokenRows) else rows.n_columns
    noise = float(likelihood.lambda_x) ** -0.5 if hasattr(likelihood, "lambda_x") else 1.0
    mean = 5 * noise if hasattr(likelihood, "lambda_x") else MEAN
    rest = likelihood.initial_bias(torch.full((n_features,), mean).to(z))
    target = SPREAD * noise
    low, high = 0.0, 20.0
    for _ in range(30):
        factor = (low + high) / 2
        for parameter, drawn in weights:
            parameter.copy_(drawn * (factor if parameter.dim() > 1 else 0.0))
        found = decoder.given(z, rows)  # type: ignore[operator]
        wide = max(float(head.std(0).mean()) for head in found.values())
        low, high = (factor, high) if wide < target else (low, factor)
    for head, value in rest.items():
        if isinstance(rows, TokenRows):  # five tokens a sequence
            decoder.outputs[head][-1] = 0.0  # type: ignore[index, union-attr]
            value[-1] = value[0] + math.log(rows.n_tokens / 5)
        decoder.output_biases[head].copy_(value)  # type: ignore[index, union-attr]


def simulate(case: Case, seed: int = 0) -> tuple[Dataset, Split, np.ndarray, np.ndarray]:
    """Data of a combination, drawn from its own Pyro program; the true scores (n_users, n_items) and the cold items."""
    rng, options = np.random.default_rng(seed), Case(*case.data, "svi", "bayes").options()
    kinds = PARTS if case.content == PRODUCT else {case.kind: case.content}
    there = {kind: rng.random(N_ITEMS) < (0.67 if len(kinds) > 1 else 2.0) for kind in kinds}
    likelihood = content_likelihood(options.model.content_likelihood, options.model.content_likelihood_args)
    others = {kind: blank(kind, there[kind], part == "categorical", rng) for kind, part in kinds.items()}
    cold = rng.random(N_ITEMS) < COLD
    seen = (rng.random((N_USERS, N_ITEMS)) < SEEN) & ~cold
    model = _model(others, likelihood, options)
    stored = ~seen | (rng.random(seen.shape) < (0.5 if model.ratings.zeros else 1.0))
    users, items = stored.nonzero()
    pattern = np.where(seen, np.nan, 0.0)[users, items]
    placeholder = (np.arange(len(users)) % 2).astype(float)  # in the support of every likelihood of ratings
    pairs = Interactions(users, items, placeholder, pattern, None, N_USERS, N_ITEMS)
    blank_data = _dataset(case, pairs, others)
    observations, _ = observe(blank_data, _split(pairs), likelihood, options.model, "none")
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = model.double().eval()
    model.item_prior.prior_by_decay = True
    if isinstance(observations.content, PartRows):
        for name, part in model.content.each():  # type: ignore[operator]
            rows = observations.content.parts[name]
            enliven(model.decoder.part(name), part, rows, generator)  # type: ignore[operator]
    else:
        enliven(model.decoder, model.content, observations.content, generator)
    batch = observations.batch(torch.arange(N_ITEMS))
    trace = poutine.trace(poutine.uncondition(model)).get_trace(batch)
    x, u, v, drawn = (trace.nodes[site]["value"] for site in "xuvR")
    rows = {name: x.parts[name] for name in others} if isinstance(x, PartRows) else {case.kind: x}
    others = {name: _container(others[name], rows[name]) for name in others}
    order = np.lexsort((drawn.items.numpy(), drawn.users.numpy()))
    columns = (drawn.users, drawn.items, drawn.ratings, drawn.confidences)
    users, items, ratings, confidences = (column.numpy()[order] for column in columns)
    pairs = Interactions(users, items, ratings.astype(float), confidences.astype(float), None, N_USERS, N_ITEMS)
    scores = (model.of_users(u) @ model.of_items(v).mT).detach().numpy()
    return _dataset(case, pairs, others), _split(pairs), scores, cold


def _model(others: dict[str, AnyContent], likelihood: Any, options: Options) -> Any:
    nobody = Interactions.from_arrays([], [], n_users=N_USERS, n_items=N_ITEMS)
    forms, parts = forms_of(_dataset(None, nobody, others), likelihood, options.model.content)
    return make_model(N_USERS, N_ITEMS, forms, parts, options.model)


def _dataset(case: Case | None, pairs: Interactions, others: dict[str, AnyContent]) -> Dataset:
    no_text = Content(sp.csr_matrix((N_ITEMS, 0)))
    name = "blank" if case is None else "-".join(case.data)
    return Dataset(name, pairs, no_text, np.arange(N_USERS), np.arange(N_ITEMS), None, None, others)


def _split(pairs: Interactions) -> Split:
    return Split(pairs, pairs.select(np.zeros(len(pairs), bool)), None, None, {"kind": "cells"})


def _container(like: AnyContent, rows: Any) -> AnyContent:
    """Drawn rows, of the items that have this content, as a content of all items."""
    present = like.present
    at = np.flatnonzero(present)
    if isinstance(rows, TokenRows):
        assert isinstance(like, Tokens)
        lengths = np.zeros(len(present), np.int64)
        lengths[at] = rows.lengths.numpy()
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        return Tokens(indptr, rows.tokens.numpy().astype(np.int32), like.vocabulary, present)
    values = np.zeros((len(present), rows.n_columns))
    values[at] = rows.dense().numpy()
    return as_content(like.kind, values, present)


def measure(case: Case, data: tuple[Dataset, Split, np.ndarray, np.ndarray], pretrained: Pretrained) -> dict[str, Any]:
    """Fit one combination to its data; correlations of scores on cells that were not seen, and seconds."""
    dataset, split, scores, cold = data
    began = time.perf_counter()
    fit = fit_with(dataset, split, case.options(), pretrained=pretrained)
    row = asdict(case) | correlations(fit, scores, cold)
    row["seconds"] = time.perf_counter() - began
    weak = case.content == "categorical"
    row["ok"] = row["warm"] >= WEAK_FLOOR if weak else row["warm"] >= WARM_FLOOR and row["cold"] >= COLD_FLOOR
    return row


def correlations(fit: Fit, scores: np.ndarray, cold: np.ndarray) -> dict[str, float]:
    """Of posterior means with true scores (n_users, n_items), over cells that were not seen of warm and cold items."""
    found = fit.posterior.score_block(np.arange(len(scores))).double().numpy()
    pairs = fit.split.train
    unseen = np.ones(scores.shape, bool)
    unseen[pairs.users[pairs.observed], pairs.items[pairs.observed]] = False
    groups = {"warm": unseen & ~cold, "cold": unseen & cold}
    return {name: float(np.corrcoef(scores[where], found[where])[0, 1]) for name, where in groups.items()}


def refusals(refused: dict[str, Case]) -> list[dict[str, Any]]:
    """What the real command answers to each incompatible combination: message, exit code and seconds."""
    rows = []
    for case in refused.values():
        flags = ["--content-likelihood", case.content, "--network", case.network, "--rating-likelihood", case.rating]
        flags += [text for key, value in MODES[case.mode].items() for text in (f"--{key}", value)]
        if case.method == "mcmc":
            flags += ["--biases", "off"]
        if case.content == PRODUCT:
            flags += [text for kind, part in PARTS.items() for text in (f"--content-likelihood.{kind}", part)]
        command = [sys.executable, "-m", f"inference.{case.method}", *flags]
        began = time.perf_counter()
        answer = subprocess.run(command, capture_output=True, text=True)
        row = asdict(case) | {"seconds": time.perf_counter() - began, "code": answer.returncode}
        rows.append(row | {"message": answer.stderr.strip(), "lines": len(answer.stderr.strip().splitlines())})
    return rows


def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure all compatible combinations that are asked for and list the others; exit code 1 if one is below."""
    parser = command("combinations", __doc__)
    parser.add_argument("--only", nargs="*", default=[], help="FIELD=NAME: cases of these names alone; FIELD is one of "
                        "content, kind, network, rating, method, mode, and may be given again")  # fmt: skip
    parser.add_argument("--out", type=Path, help="a CSV file of all rows")
    parser.add_argument("--no-refusals", action="store_true", help="leave the incompatible ones out")
    parser.add_argument("--no-fits", action="store_true", help="leave the compatible ones out")
    arguments = parser.parse_args(argv)
    compute_with(1)
    wanted: dict[str, set[str]] = {}
    for text in arguments.only:
        field, _, name = text.partition("=")
        wanted.setdefault(field, set()).add(name)
    if unknown := set(wanted) - set(Case.__dataclass_fields__):
        parser.error(f"--only: no field {', '.join(sorted(unknown))}")
    chosen = [case for case in cases() if all(getattr(case, field) in names for field, names in wanted.items())]
    reasons = {case: compatible(case) for case in chosen}
    good = [case for case, reason in reasons.items() if not reason]
    print(f"{len(good)} compatible combinations, {len(reasons) - len(good)} incompatible ones", flush=True)
    rows: list[dict[str, Any]] = []
    asked = [] if arguments.no_fits else sorted(good, key=lambda case: (case.data, case.method))
    for _, group in itertools.groupby(asked, lambda case: case.data):
        members = list(group)
        data, pretrained = simulate(members[0]), Pretrained()
        for case in members:
            rows.append(row := measure(case, data, pretrained))
            print(" ".join(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()), flush=True)
    if rows:
        _print(rows)
    if arguments.out and rows:
        with arguments.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    failed = [row for row in rows if not row["ok"]]
    if not arguments.no_refusals:
        told = {reason: case for case, reason in reversed(reasons.items()) if reason and case.kind != "vectors"}
        refused = refusals(told)  # the command's data have words, of which the same is said as of vectors
        _print_refusals(refused)
        failed += [row for row in refused if row["code"] != 2 or row["lines"] != 1]
    if failed:
        raise SystemExit(f"{len(failed)} of {len(rows)} combinations are below their floors or not refused")
    return rows


def _print(rows: list[dict[str, Any]]) -> None:
    """A line for each content, kind, network and rating; columns are methods and modes, warm / cold."""
    ways = list(dict.fromkeys((row["method"], row["mode"]) for row in rows))
    headings = ("content", "kind", "network", "ratings", *(f"{method}\n{mode}" for method, mode in ways))
    texts = []
    for key, group in itertools.groupby(rows, lambda row: (row["content"], row["kind"], row["network"], row["rating"])):
        found = {(row["method"], row["mode"]): row for row in group}
        cells = [found.get(way) for way in ways]
        texts.append([*key, *("" if c is None else f"{c['warm']:.2f} / {c['cold']:.2f}" for c in cells)])
    show(headings, texts, left=4, width=180)
    for part in ("warm", "cold"):
        values = [row[part] for row in rows]
        print(f"{part}: {min(values):.3f} to {max(values):.3f}, median {np.median(values):.3f}")
    print(f"{len(rows)} fits, {sum(row['seconds'] for row in rows):.0f} seconds")


def _print_refusals(rows: list[dict[str, Any]]) -> None:
    texts = []
    for row in rows:
        names = [row[field] for field in ("method", "mode", "content", "network", "rating")]
        texts.append([" ".join(names), row["message"], f"{row['seconds']:.2f}"])
    show(("incompatible, for example", "answer", "seconds"), texts, left=2, width=180)
    print(f"{len(rows)} refusals, the slowest in {max(row['seconds'] for row in rows):.2f} seconds; wanted: below 1")


if __name__ == "__main__":
    as_command(main)
