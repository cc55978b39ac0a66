"""Encoder and decoder by minibatch gradient steps: what ``svi`` and ``coordinate`` share.

First the content alone (pre-training), then with what is known of the ratings. The two algorithms differ in what a
minibatch's objective is (:meth:`NetworkFit.terms`) and in how u and v move.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import pyro
import torch
from torch import Tensor, nn

from inference.algorithms.base import Inference, Snapshot
from inference.algorithms.choosing import choose, scales_contents
from inference.algorithms.data_parallel import Shares
from inference.algorithms.elbo import NamedELBO
from inference.algorithms.guides import ContentGuide, Guides
from inference.algorithms.precisions import start_precisions
from inference.algorithms.standard_scale import StandardScale, move
from inference.algorithms.warm import Warm
from inference.algorithms.workers import ALONE, Workers, here
from inference.options import Options
from models.base import FactorModel
from models.build import rating_likelihood
from models.corruption import drop_parts, drop_words, hide_tokens
from models.item_prior import Pull
from models.observations import Batch, Observations
from models.returns import check_returns, learning, number_given
from models.rows import DenseRows, PartRows
from models.starting import start_alive
from models.state import adopt, fill, kept
from models.story import check_story
from pyro_cvae.errors import InputError


@dataclass
class NetworkState:
    """All that the next epoch depends on, but the random state.

    ``early`` are the networks as they were after some epochs on the contents alone, of which ``--tune`` may take one.
    """

    model: FactorModel
    guide: Guides
    optimizer: torch.optim.Optimizer
    epoch: int
    joint: bool
    early: dict[int, dict[str, Tensor]] = field(default_factory=dict, kw_only=True)


TOKEN_DROPOUT = 0.5
"""Share of the tokens that a recurrent decoder is not told while it is trained, by default (docs/contents.md)."""
State = TypeVar("State", bound=NetworkState)


class NetworkFit(Inference[State]):
    """Pre-training of the content VAE, then epochs of everything together.

    Parameters: ``make`` builds the model at a random start; ``observations`` are what it is conditioned on. Explicit
    ratings are fitted on the standard ``scale``; posterior and history are in the ratings' own units, and so is the
    model after :meth:`finish`. A fit that goes on from another one is ``warm``, and what ``make`` builds has learned.
    """

    warm: Warm | None = None

    def __init__(self, make: Callable[[], FactorModel], observations: Observations, options: Options) -> None:
        self.make, self.options, self.workers = make, options, here()
        self.shares = Shares(self.workers)
        dtype, device = getattr(torch, options.fit.dtype), options.fit.device
        rating = rating_likelihood(options.model)
        self.scale = StandardScale()
        if rating.standardised and self._probe().has_standard_priors():
            self.scale = StandardScale.of(observations.columns, options.model.biases == "on")
            observations = replace(observations, columns=self.scale.columns(observations.columns))
        self.observations = observations.to(device, dtype)
        self.n_ratings = int((observations.columns.confidences > 0).sum())
        self.batch_size = options.fit.batch_size or min(512, max(32, observations.n_items // 50))

    @property
    def n_steps(self) -> int:
        """Epochs of pre-training and of joint training."""
        return self.options.fit.pretrain_epochs + self.options.fit.epochs

    @property
    def joint_rate(self) -> float:
        """Adam's step of the networks in joint training."""
        return self.options.fit.learning_rate or 0.0

    def init(self) -> State:
        """Networks started from the data, layer by layer; nothing is known of ratings yet."""
        model = self._model()
        self.check(model)
        self.check_found(model)
        self.workers.by_first(lambda: self._check_plugins(model))
        state = self.pretraining(model)
        if state.model.item_prior.trained and self.warm is None:
            start_alive(state.model, self.observations, self.options.fit.start)
        self.shares.same_start(state.model)
        self._keep_early(state)
        return state if self.options.fit.pretrain_epochs else self.joint(state)

    def _check_plugins(self, model: FactorModel) -> None:
        """InputError where methods do not give what the algorithms read, or the program is not what they read."""
        check_returns(model, self.observations)
        check_story(model, self.observations)

    def _probe(self) -> FactorModel:
        """A model to ask, whose making takes no random number of the fit's."""
        with torch.random.fork_rng(devices=()):
            return self.make()

    def _model(self) -> FactorModel:
        """A new model on the standard scale."""
        return self.scale.standard(self.make().to(self.options.fit.device))

    def finish(self, state: State) -> FactorModel:
        """The model in the ratings' own units, after the last step."""
        return self.scale.own(state.model)

    @torch.no_grad()
    def start_ratings(self, state: NetworkState, found: dict[str, float] | None) -> None:
        """Precisions that are not given, or those ``found`` before; the items' mean bias at that of the ratings.

        The networks may be put back to where they were at an earlier epoch. What points say nothing of is held.
        """
        model = state.model
        if model.mean is not None and self.warm is None:
            start = model.ratings.initial_mean(self.observations.columns)
            model.mean.fill_(number_given(model.ratings, "initial_mean", start))
        if found is None:
            z_loc = encode(model, self.observations, self.workers)[0]
            if self.workers.is_first:
                self._find(state, z_loc)
            self.shares.same_model(model)
        else:
            move(found, model)
        self.observations = replace(self.observations, columns=model.ratings.weighed(self.observations.columns))
        if self.options.fit.mode == "map":
            model.ratings.hold()

    def _find(self, state: NetworkState, z_loc: Tensor) -> None:
        """Precisions that are not given, how long networks are trained best, and what contents of unrated items count.

        Shapes: ``z_loc`` (n_items, n_factors), the content means.
        """
        model = state.model
        columns, c = self.observations.columns, self.options.model.cold_scale
        if self.warm is None or model.to_find:
            start_precisions(model, columns, z_loc, self.options, self.options.fit.seed)
        if self.options.fit.tune:
            contents = self._early_means(state) | {state.epoch: z_loc}
            epochs, model.trials = choose(model, columns, contents, self.options)
            if epochs in state.early:
                fill(model.item_prior, state.early[epochs])
        elif self.warm is not None and scales_contents(model, self.options):
            self.warm.scale_contents(model, ~columns.observed)
        if c is not None:
            model.scale_contents(~columns.observed, c, c)

    def _early_means(self, state: NetworkState) -> dict[int, Tensor]:
        """Content means (n_items, n_factors) of the early networks, by their epoch."""
        item_prior, means = state.model.item_prior, dict[int, Tensor]()
        now = _copied(item_prior) if state.early else {}
        for epoch, tensors in state.early.items():
            fill(item_prior, tensors)
            means[epoch] = encode(state.model, self.observations)[0]
        if state.early:
            fill(item_prior, now)
        return means

    def _keep_early(self, state: NetworkState) -> None:
        """Keep the networks as they started and are after a quarter and a half of the epochs on contents alone."""
        n, item_prior = self.options.fit.pretrain_epochs, state.model.item_prior
        chosen = self.options.fit.tune > 0 and item_prior.trained and item_prior.knows_content
        if chosen and not state.joint and state.epoch in (0, n // 4, n // 2) and state.epoch < n:
            state.early[state.epoch] = _copied(item_prior)

    def check(self, model: FactorModel) -> None:
        """InputError, before any work, where the algorithm takes no such ratings."""

    def check_found(self, model: FactorModel) -> None:
        """InputError where ratings are of two densities, --tune finds nothing, or --cold-scale is none of the model."""
        ratings, scale = model.ratings, self.options.model.cold_scale
        if borrowed := type(ratings).borrowed():
            problem = f"{type(ratings).__name__} has a cell of its own and takes {', '.join(borrowed)} of another"
            raise InputError(problem, "define these too, or derive from models.ratings.RatingLikelihood")
        if self.options.fit.tune and not (ratings.conjugate and ratings.exact and not ratings.learns):
            problem = f"--tune is of ratings in closed form, which {type(ratings).__name__} has not"
            raise InputError(problem, "leave it out, or use inference.tune")
        if scale not in (None, 1.0) and type(model).prior_of_items is not FactorModel.prior_of_items:
            problem = f"{type(model).__name__} has a prior of v of its own, in which --cold-scale is not"
            raise InputError(problem, "leave it out")

    def own_part(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """What this worker has of the tensors of model and guide."""
        return tensors

    @staticmethod
    def refuse_parameters(model: FactorModel, method: str) -> None:
        """InputError where the model has parameters of its own, which closed forms do not learn."""
        if model.further_parameters:
            problem = f"{method} does not learn {', '.join(model.further_parameters)} of {type(model).__name__}"
            raise InputError(problem, "use inference.svi, draw it in above(), or hold it by requires_grad_(False)")

    @staticmethod
    def refuse_stages(model: FactorModel) -> None:
        """InputError where the contents are looked at after the ratings, which inference.coordinate alone does."""
        if model.item_prior.staged:
            problem = f"{type(model).__name__} is fitted in stages: ratings, contents, ratings"
            raise InputError(problem, "use inference.coordinate")

    @abstractmethod
    def pretraining(self, model: FactorModel) -> State:
        """The state before the first epoch on the content alone."""

    @abstractmethod
    def joint(self, state: State, found: dict[str, float] | None = None) -> State:
        """The state before the first epoch with ratings, from that after pre-training.

        ``found`` are precisions that an earlier call has found, where a fit goes on.
        """

    @abstractmethod
    def terms(self, elbo: NamedELBO, state: State, batch: Batch) -> dict[str, Tensor]:
        """Named parts of a minibatch's objective in nats, scaled to all items."""

    def validates(self, state: State) -> bool:
        """Only joint training knows ratings."""
        return state.joint

    def content_guide(self, model: FactorModel) -> Guides:
        """A guide of the contents' latent site alone, empty for a model without one."""
        plates = lambda batch: [pyro.plate("items", model.n_items, subsample=batch.items)]  # noqa: E731
        guide = Guides(model.content_only, create_plates=plates)
        if model.item_prior.drawn:
            guide.append(ContentGuide(model))
        guide(self.observations.batch(torch.arange(min(2, model.n_items))))  # its first call draws more than others
        return guide

    def moves(self, state: State) -> bool:
        """Whether an epoch has anything to move by gradients."""
        return state.model.item_prior.trained

    def replicated(self, state: State) -> list[nn.Module]:
        """Modules of which every worker has the whole."""
        return [state.model, state.guide]

    def pull(self, state: State) -> Pull | None:
        """What is known of the ratings, for item priors that learn otherwise; ``None`` of contents alone."""
        return None

    def epoch(self, state: State) -> tuple[dict[str, float], float]:
        """Every item once: mean parts of the objective over the epoch, and the weight of the KL at its end.

        What is moved otherwise comes behind (:meth:`models.base.ItemPrior.learn`), unless the networks are held. Where
        nothing has a gradient, the parts are those at the end.
        """
        item_prior, moves, kl_weight = state.model.item_prior, self.moves(state), self.options.fit.kl_weight
        self.shares.same_epoch(*self.replicated(state))
        sums = dict[str, float]()
        if moves:
            sums, kl_weight = self._gradient_steps(state)
        if item_prior.learns and (not state.joint or self.joint_rate > 0):
            with torch.no_grad(), learning(item_prior, "learn"):
                item_prior.learn(self.observations.content, self.pull(state))
        if not moves:
            sums = self.held_content(state)
        state.epoch += 1
        self._keep_early(state)
        return sums, kl_weight

    def _gradient_steps(self, state: State) -> tuple[dict[str, float], float]:
        """The same of what minibatch gradients move.

        The gradient of log p(theta) is Adam's weight decay, which costs nothing; its value is that at the end.
        """
        model, elbo, sums = state.model, NamedELBO(), dict[str, float]()
        model.item_prior.prior_by_decay = True
        batches, n_items = list(self.observations.partition(self.batch_size)), self.observations.n_items
        for index, batch in enumerate(batches):
            elbo.kl_weight = self._anneal(state, index / len(batches))
            state.optimizer.zero_grad(set_to_none=True)
            with self.shares.of(self._drop_words(batch)) as (own, share):
                if share:
                    terms = self.terms(elbo, state, own)
                    self.shares.weighted(-elbo.objective(terms) / n_items, share).backward()
                    _add(sums, terms, len(own.items) / n_items)
            self.shares.add_gradients(state.optimizer)
            state.optimizer.step()
        model.item_prior.prior_by_decay = False
        sums = self.shares.totals(sums)
        with torch.no_grad():
            _add(sums, model.item_prior.weight_terms(), 1.0)
        return sums, elbo.kl_weight

    @torch.no_grad()
    def held_content(self, state: State) -> dict[str, float]:
        """The content's parts as they are now, with one draw of every z and all words."""
        sums = dict[str, float]()
        if not state.model.item_prior.site:
            return sums
        state.model.eval()
        for batch in self.observations.partition(self.batch_size, shuffle=False):
            with self.shares.of(batch) as (own, share):
                if share:
                    terms = NamedELBO().content_terms(state.model, state.guide, own)
                    _add(sums, terms, len(own.items) / self.observations.n_items)
        state.model.train()
        return self.shares.totals(sums)

    def in_content(self, state: State) -> bool:
        """Whether the networks are still in their epochs on the contents alone."""
        return state.epoch < self.options.fit.pretrain_epochs

    def _anneal(self, state: State, into: float) -> float:
        """Sets the steps' sizes (constant, then falling linearly to a tenth over the second half of a phase).

        Returns the weight of the KL.
        """
        fit = self.options.fit
        content = self.in_content(state)
        start, length = (0, fit.pretrain_epochs) if content else (fit.pretrain_epochs, fit.epochs)
        progress = (state.epoch - start + into) / length
        for group in state.optimizer.param_groups:
            group["lr"] = group["full_lr"] * (1 - 0.9 * max(0.0, 2 * progress - 1))
        if not content or not self.kl_warmup:
            return fit.kl_weight
        return fit.kl_weight * min(1.0, (state.epoch + into) / self.kl_warmup)

    @property
    def kl_warmup(self) -> int:
        """Epochs of pre-training over which the weight of the KL rises.

        Of numbers that are dense, and of contents that items may lack, the decoder starts without knowing what the
        encoder says. Under the full weight it lets go of units before it has learned to read them, most of all of
        pixels, of which each says little.
        """
        fit, content = self.options.fit, self.observations.content
        if fit.kl_warmup is not None:
            return fit.kl_warmup
        return fit.pretrain_epochs // 2 if isinstance(content, DenseRows | PartRows) else 0

    def _drop_words(self, batch: Batch) -> Batch:
        """The minibatch with words hidden from the encoder, tokens from the decoder, and parts from the encoder."""
        rate, parts = self.options.fit.word_dropout, self.options.fit.part_dropout
        words, tokens = (0.0, TOKEN_DROPOUT) if rate is None else (rate, rate)
        content, inputs = batch.content, batch.inputs
        if parts and isinstance(inputs, PartRows):
            inputs = drop_parts(inputs, parts)
        if words:
            inputs = drop_words(inputs, words)
        if tokens:
            content = hide_tokens(content, tokens)
        return replace(batch, content=content, inputs=inputs)

    def snapshot(self, state: State) -> Snapshot:
        """Parameters and buffers of model and guide, the optimiser's moments, the epoch."""
        tensors = {f"parameter.{name}": tensor for name, tensor in kept(_both(state)).items()}
        for epoch, early in state.early.items():
            tensors |= {f"early.{epoch}.{name}": tensor for name, tensor in early.items()}
        for index, moments in state.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in moments.items()}
        meta = {"epoch": state.epoch, "joint": state.joint, "precisions": state.model.precisions()}
        return tensors, meta | {"trials": state.model.trials}

    def restore(self, snapshot: Snapshot) -> State:
        """The state of a snapshot."""
        tensors, meta = snapshot
        state = self.pretraining(self._model())
        given = {name: tensor.clone() for name, tensor in kept(state.model.ratings).items()}
        state.epoch, start = meta["epoch"], "parameter."
        state.model.trials = list(meta.get("trials", []))
        found = {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
        if meta["joint"]:
            of_ratings = "model.ratings."
            adopt(state.model.ratings, {name.removeprefix(of_ratings): tensor for name, tensor in found.items()})
            state = self.joint(state, meta["precisions"])
        both = _both(state)
        fill(both, self.own_part(found))
        if not meta["joint"]:  # the ratings have not been seen: another fit, of another noise, may go on from here
            fill(state.model.ratings, given)
        saved = state.optimizer.state_dict()
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, index, moment = name.split(".")
                saved["state"].setdefault(int(index), {})[moment] = tensor
            elif name.startswith("early."):
                _, epoch, own = name.split(".", 2)
                state.early.setdefault(int(epoch), {})[own] = tensor
        state.optimizer.load_state_dict(saved)
        return state


def adam(
    model: FactorModel, learning_rate: float, others: dict[float, list[nn.Parameter]] | None = None
) -> torch.optim.Optimizer:
    """Adam over the model, with the prior of the networks' weights as decay, and ``others`` by the size of their steps.

    The loss is per item, hence so is the decay, lambda_w / n_items. A likelihood's own parameters have none.
    """
    item_prior: Any = model.item_prior
    networks = list(nn.ModuleList(item_prior.networks()).parameters())
    own = {id(parameter) for parameter in [*networks, *(p for part in (others or {}).values() for p in part)]}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in own]
    groups: list[dict[str, Any]] = []
    if networks:
        decay = item_prior.lambda_w / model.n_items
        groups = [{"params": networks, "lr": learning_rate, "weight_decay": decay}]
    groups += [{"params": rest, "lr": learning_rate}] if rest else []
    groups += [{"params": part, "lr": step} for step, part in (others or {}).items()]
    if not groups:  # closed forms of a model without networks: nothing is left for an optimiser
        groups = [{"params": [nn.Parameter(torch.zeros(0))], "lr": 0.0}]
    return torch.optim.Adam([group | {"full_lr": group["lr"]} for group in groups], fused=True)


def _add(sums: dict[str, float], terms: dict[str, Tensor], share: float) -> None:
    for name, value in terms.items():
        sums[name] = sums.get(name, 0.0) + share * value.item()


def _copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in kept(module).items()}


def _both(state: NetworkState) -> nn.Module:
    return nn.ModuleDict({"model": state.model, "guide": state.guide})


BLOCK = 4096
"""Items that are encoded at once."""


@torch.no_grad()
def encode(
    model: FactorModel, observations: Observations, workers: Workers = ALONE, every: int = 1
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of q(m_j) of all items, of a CVAE those of q(z_j | x_j), (n_items, n_factors).

    Each of the ``workers`` encodes a share of them. With ``every`` n they are those of each n-th item.
    """
    items = torch.arange(0, observations.n_items, every, device=observations.content.device)
    spans = workers.spans(torch.ones(len(items)))
    own = items[spans[workers.rank]]
    parts = [model.item_prior.of_items(part, observations.inputs.select(part)) for part in own.split(BLOCK)]
    loc, scale = (torch.cat([part[which] for part in parts]) for which in (0, 1))
    return workers.rows(loc, spans), workers.rows(scale, spans)
