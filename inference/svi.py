"""Stochastic variational inference over the Pyro model: ``python -m inference.svi --mode map|bayes``.

First the content alone (pre-training), then everything together, by Adam over minibatches of items that are exact over
users. ``map`` has points (AutoDelta) for u and v, ``bayes`` mean-field Normals or the structured q(v|z); z is
amortised by the encoder in both.
"""

from __future__ import annotations

if __name__ == "__main__":  # before torch is imported, so that --help and a wrong option answer at once
    from inference.fit_command import run_fit

    raise SystemExit(run_fit("svi"))

from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro.infer.autoguide import AutoGuideList
from torch import Tensor, nn

from inference.base import Inference, Snapshot, StepInfo
from inference.elbo import NamedELBO, constant, total
from inference.guides import AmortizedContent, item_conditional, make_guide, moments_of, prior_sd
from inference.options import Options
from inference.posterior import Posterior, content_diagnostics
from models.build import start_alive
from models.cvae import CVAE
from models.observations import Batch, Observations


@dataclass
class State:
    """All that the next epoch depends on, but the random state."""

    model: CVAE
    guide: AutoGuideList
    optimizer: torch.optim.Optimizer
    epoch: int
    joint: bool


class SVI(Inference[State]):
    """Pre-training of the content VAE, then joint training of the CVAE, both by Adam on the named ELBO.

    Parameters: ``make`` builds the model at a random start; ``observations`` in the fit's dtype and device.
    """

    def __init__(self, make: Any, observations: Observations, options: Options) -> None:
        self.make, self.options = make, options
        dtype, device = getattr(torch, options.fit.dtype), options.fit.device
        self.observations = observations.to(device, dtype)
        self.batch_size = options.fit.batch_size or min(512, max(32, observations.n_items // 50))

    @property
    def n_steps(self) -> int:
        """Epochs of pre-training and of joint training."""
        return self.options.fit.pretrain_epochs + self.options.fit.epochs

    def init(self) -> State:
        """Networks started from the data, layer by layer; nothing is known of ratings yet."""
        model = self.make().to(self.options.fit.device)
        start_alive(model, self.observations)
        state = self._pretraining(model)
        return state if self.options.fit.pretrain_epochs else self._joint(state)

    def _pretraining(self, model: CVAE) -> State:
        guide = AutoGuideList(model.content_only, create_plates=self._item_plate(model))
        guide.append(AmortizedContent(model))
        guide(self.observations.batch(torch.arange(min(2, model.n_items))))  # its first call draws more than others
        optimizer = self._adam(model, guide, self.options.fit.pretrain_learning_rate)
        return State(model, guide, optimizer, 0, joint=False)

    def _joint(self, state: State) -> State:
        """q(v) starts at the means of q(z|x), q(u) at a draw of the prior."""
        model, fit = state.model, self.options.fit
        z_loc, _ = encode(model, self.observations)
        u_loc = model.lambda_u**-0.5 * torch.randn(model.n_users, model.n_factors).to(z_loc)
        v_loc = z_loc if model.item_site == "v" else torch.zeros_like(z_loc)
        guide = make_guide(model, self.options.kind, self.observations, u_loc, v_loc, fit.init_scale)
        return State(model, guide, self._adam(model, guide, fit.learning_rate), state.epoch, joint=True)

    @staticmethod
    def _item_plate(model: CVAE) -> Any:
        return lambda batch: [pyro.plate("items", model.n_items, subsample=batch.items)]

    def _adam(self, model: CVAE, guide: AutoGuideList, learning_rate: float) -> torch.optim.Optimizer:
        """Adam with ``learning_rate`` for the networks; for factors the step is in prior standard deviations."""
        size = self.options.fit.factor_learning_rate
        networks = {id(parameter) for parameter in model.parameters()}
        groups: dict[float, list[nn.Parameter]] = {learning_rate: list(model.parameters())}
        for name, parameter in guide.named_parameters():
            if id(parameter) not in networks:
                is_log_scale = name.endswith("scale_unconstrained")
                sd = 1.0 if is_log_scale else prior_sd(model, "u" if name.startswith("0.") else model.item_site)
                groups.setdefault(size * sd, []).append(parameter)
        made = [{"params": part, "lr": step, "full_lr": step} for step, part in groups.items()]
        return torch.optim.Adam(made, fused=True)

    def step(self, state: State) -> StepInfo:
        """One epoch: every item once."""
        fit = self.options.fit
        if not state.joint and state.epoch == fit.pretrain_epochs:
            state.__dict__.update(self._joint(state).__dict__)
        elbo, sums = NamedELBO(), dict[str, float]()
        batches = list(self.observations.partition(self.batch_size))
        for index, batch in enumerate(batches):
            elbo.kl_weight = self._anneal(state, index / len(batches))
            inputs = self._drop_words(batch)
            terms = self._terms(elbo, state, inputs)
            state.optimizer.zero_grad(set_to_none=True)
            (-elbo.objective(terms) / self.observations.n_items).backward()
            state.optimizer.step()
            share = len(batch.items) / self.observations.n_items
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + share * value.item()
        state.epoch += 1
        return self._report(state, elbo.kl_weight, sums)

    def _terms(self, elbo: NamedELBO, state: State, batch: Batch) -> dict[str, Tensor]:
        if state.joint:
            return elbo.terms(state.model, state.guide, batch)
        return elbo.content_terms(state.model, state.guide, batch)

    def _anneal(self, state: State, into: float) -> float:
        """Sets the steps' sizes (constant, then falling linearly to a tenth over the second half of a phase).

        Returns the weight of the KL.
        """
        fit = self.options.fit
        start, length = (fit.pretrain_epochs, fit.epochs) if state.joint else (0, fit.pretrain_epochs)
        progress = (state.epoch - start + into) / length
        for group in state.optimizer.param_groups:
            group["lr"] = group["full_lr"] * (1 - 0.9 * max(0.0, 2 * progress - 1))
        if state.joint or not fit.kl_warmup:
            return fit.kl_weight
        return fit.kl_weight * min(1.0, (state.epoch + into) / fit.kl_warmup)

    def _drop_words(self, batch: Batch) -> Batch:
        rate = self.options.fit.word_dropout
        if not rate:
            return batch
        kept = (torch.rand_like(batch.inputs.values) >= rate) / (1 - rate)
        inputs = type(batch.inputs)(
            batch.inputs.indptr, batch.inputs.columns, batch.inputs.values * kept, batch.inputs.n_columns
        )
        return Batch(batch.items, batch.content, inputs, batch.columns)

    def _report(self, state: State, kl_weight: float, terms: dict[str, float]) -> StepInfo:
        """The epoch's mean parts; the objective untempered and with log p(R)'s normaliser."""
        if state.joint:
            terms["ratings"] += constant(state.model, self.observations)
        found = content_diagnostics(*encode(state.model, self.observations), n_draws=0)
        found["kl_weight"] = kl_weight
        return StepInfo("joint" if state.joint else "content", total(terms), terms, found)

    def validates(self, state: State) -> bool:
        """Only joint training knows ratings."""
        return state.joint

    @torch.no_grad()
    def posterior(self, state: State) -> Posterior:
        """q(U), q(V), q(Z) of all users and items."""
        if not state.joint:
            state = self._joint(state)
        model, kind = state.model, self.options.kind
        z_loc, z_scale = encode(model, self.observations)
        q = moments_of(state.guide, model)
        u_loc, u_var = q["u"]
        common: dict[str, Any] = {"lambda_v": model.lambda_v, "parametrization": model.parametrization}
        if u_var is not None:
            common["u_scale"] = u_var.sqrt()
        if kind == "structured":
            v_loc, common["v_covariance"], common["v_block"] = self._structured_items(model, u_loc, u_var, z_loc)
        else:
            v_loc, v_var = self._unrated_at_their_optimum(model, *q[model.item_site], z_loc)
            if model.item_site == "v_dagger":
                v_loc = v_loc + z_loc
                v_var = None if v_var is None else v_var + z_scale.square()
            if v_var is not None:
                common["v_scale"] = v_var.sqrt()
        posterior = Posterior(kind, u_loc, v_loc, z_loc, z_scale, **common)
        moved = {name: tensor.detach().cpu().clone() for name, tensor in posterior.tensors().items()}
        return Posterior.from_tensors(kind, moved, model.lambda_v, model.parametrization)

    def _unrated_at_their_optimum(
        self, model: CVAE, loc: Tensor, var: Tensor | None, z_loc: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Items without a column: given q(z), the best q(v) is N(mu, 1/lambda_v), the best q(v†) its prior."""
        unrated = ~self.observations.columns.observed[:, None]
        loc = torch.where(unrated, z_loc if model.item_site == "v" else 0.0, loc)
        return loc, None if var is None else torch.where(unrated, 1 / model.lambda_v, var)

    def _structured_items(
        self, model: CVAE, u_loc: Tensor, u_var: Tensor | None, z_loc: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Means of v, the distinct covariances of v given z, and each item's block; unrated items share the last."""
        rated = self.observations.columns.indptr.diff() > 0
        means, blocks = [], []
        for batch in self.observations.partition(self.batch_size, shuffle=False):
            tril, shift = item_conditional(model, u_loc, u_var, batch)
            right = (shift + model.lambda_v * z_loc[batch.items])[..., None]
            means.append(torch.cholesky_solve(right, tril).squeeze(-1))
            alone = ~rated[batch.items]
            blocks.append((torch.cholesky_inverse(tril[~alone]), torch.cholesky_inverse(tril[alone][:1])))
        shared = torch.cat([one for _, one in blocks])[:1]
        block = torch.where(rated, rated.cumsum(0) - 1, int(rated.sum()))
        return torch.cat(means), torch.cat([*(own for own, _ in blocks), shared]), block

    def snapshot(self, state: State) -> Snapshot:
        """Parameters of model and guide, the optimiser's moments, the epoch."""
        tensors = {f"parameter.{name}": p.detach() for name, p in _parameters(state)}
        for index, moments in state.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in moments.items()}
        return tensors, {"epoch": state.epoch, "joint": state.joint}

    def restore(self, snapshot: Snapshot) -> State:
        """The state of a snapshot."""
        tensors, meta = snapshot
        state = self._pretraining(self.make().to(self.options.fit.device))
        if meta["joint"]:
            state = self._joint(state)
        state.epoch = meta["epoch"]
        with torch.no_grad():
            for name, parameter in _parameters(state):
                parameter.copy_(tensors[f"parameter.{name}"])
        saved = state.optimizer.state_dict()
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, index, moment = name.split(".")
                saved["state"].setdefault(int(index), {})[moment] = tensor
        state.optimizer.load_state_dict(saved)
        return state


def _parameters(state: State) -> list[tuple[str, nn.Parameter]]:
    """All parameters once, by name."""
    both = nn.ModuleDict({"model": state.model, "guide": state.guide})
    return list(both.named_parameters())


@torch.no_grad()
def encode(model: CVAE, observations: Observations, block: int = 4096) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of q(z_j | x_j) of all items, (n_items, n_factors)."""
    rows = torch.arange(observations.n_items, device=observations.content.indptr.device)
    parts = [model.encoder(observations.inputs.select(part)) for part in rows.split(block)]
    return torch.cat([loc for loc, _ in parts]), torch.cat([scale for _, scale in parts])
