"""All options of a fit together, and what of them does not go with what."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, fields, replace
from typing import Any

from inference.bounds import check_all
from inference.compatibility import AUTO, check_content, check_kinds, check_model, check_normalised, choose
from inference.kinds import Hide, Method, Objective, PosteriorKind
from inference.options.checking import check
from inference.options.data import DataOptions
from inference.options.fit import FitOptions
from inference.options.methods import METHODS, CoordinateOptions, MCMCOptions, SVIOptions
from inference.options.model import ModelOptions
from inference.options.run import RunOptions
from models.catalogue import RATINGS
from pyro_cvae.errors import InputError
from pyro_cvae.kinds import Ratings


@dataclass(frozen=True)
class Options:
    """All options of a fit."""

    data: DataOptions
    model: ModelOptions
    fit: FitOptions
    method: SVIOptions | CoordinateOptions | MCMCOptions
    run: RunOptions

    def __post_init__(self) -> None:
        check_all((self.data, self.model, self.fit, self.method, self.run))
        model = self.model
        if model.has_content is not False:
            likelihood = model.content_likelihood, model.content_likelihood_args
            check_content(*likelihood, model.content, model.network, self.fit.start)
            check_model(model.model, *likelihood)
        else:
            self._without_content()
        no_z = f"mean-field with --model {model.model}, which has no z"
        check(model.has_z is not False or self.fit.guide != "structured", "guide", self.fit.guide, no_z)
        if model.staged:
            staged = f"{model.model}, which is fitted in stages: ratings, contents, ratings"
            check(isinstance(self.method, CoordinateOptions), "model", staged, "fitted by inference.coordinate")
            rate = 0.003 if self.fit.learning_rate is None else self.fit.learning_rate
            object.__setattr__(self, "fit", replace(self.fit, pretrain_epochs=0, kl_warmup=None, learning_rate=rate))
        self._check_found()
        self._check_start()
        centred = self.model.parametrization == "centred"
        if self.fit.learning_rate is None:
            rate = 0.0 if self.model.rating_facts.explicit else 0.003
            object.__setattr__(self, "fit", replace(self.fit, learning_rate=rate))
        self._check_ratings()
        if self.data.ratings == "auto":
            meant: Ratings = "stars" if self.model.rating_facts.explicit else "clicks"
            object.__setattr__(self, "data", replace(self.data, ratings=meant))
        check(centred or self.fit.guide != "structured", "guide", self.fit.guide, "mean-field when non-centred")
        wide = self.fit.start != "svd" or model.has_content is False or min(self.model.hidden) >= self.model.factors
        check(wide, "start", "svd", f"whitened where a layer is narrower than the {self.model.factors} factors")
        if isinstance(self.method, CoordinateOptions):
            bayes, structured = self.fit.mode == "bayes", self.fit.guide == "structured"
            check(centred, "parametrization", self.model.parametrization, "centred in inference.coordinate")
            check(bayes or not self.method.diagonal, "diagonal", True, "left out with --mode map")
            check(bayes or not self.method.learn_precisions, "learn_precisions", True, "left out with --mode map")
            check(not (structured and self.method.diagonal), "diagonal", True, "left out with --guide structured")
        if isinstance(self.method, MCMCOptions):
            where, others = "in inference.mcmc", "use inference.coordinate or inference.svi"
            check(self.fit.mode == "bayes", "mode", self.fit.mode, f"bayes {where}; for points {others}")
            for name, part in (("lambda_r", self.model), ("kl_weight", self.fit)):
                must = f"1 {where}, since a tempered objective has no posterior; {others}"
                check(getattr(part, name) == 1, name, getattr(part, name), must)
            check(self.fit.guide == "mean-field", "guide", self.fit.guide, f"left out {where}, which needs none")
            check(centred, "parametrization", self.model.parametrization, f"centred {where}: the density is the same")
            check(self.fit.patience == 0, "patience", self.fit.patience, f"left out {where}: chains run to their end")

    def _check_found(self) -> None:
        """Raise InputError where --tune or --cold-scale does not go with ratings, guide or algorithm."""
        own, scale = self.model.rating_facts, self.model.cold_scale
        split = "file" if self.data.train_file or self.data.test_file else self.data.split
        knows = self.model.has_content is not False and not self.model.staged
        if self.model.cold == "auto":
            object.__setattr__(self, "model", replace(self.model, cold="new" if split == "items" else "unchosen"))
        check(
            knows or self.fit.hide != "items",
            "hide",
            "items",
            f"random, latest or last with --model {self.model.model}",
        )
        if self.fit.hide == "auto":
            rehearsing: dict[str, Hide] = {"time": "latest", "last": "last", "items": "items" if knows else "random"}
            hide = rehearsing.get(split, "random")
            object.__setattr__(self, "fit", replace(self.fit, hide=hide))
        able = ", ".join(n for n, facts in RATINGS.items() if facts.conjugate and facts.exact and not facts.explicit)
        closed = own.conjugate and own.exact and not own.explicit
        check(
            closed or not self.fit.tune, "tune", self.fit.tune, f"0 unless the ratings are {able}; use inference.tune"
        )
        draws, structured = isinstance(self.method, MCMCOptions), self.fit.guide == "structured"
        check(not (draws and self.fit.tune), "tune", self.fit.tune, "0 in inference.mcmc; others find settings")
        where = "in inference.mcmc" if draws else "with --guide structured"
        check(not (draws or structured) or scale in (None, 1.0), "cold_scale", scale, f"1 {where}")

    def _check_start(self) -> None:
        """Raise InputError where --start-from does not go with the algorithm, or with pre-training."""
        if self.run.start_from is None:
            return
        able = "left out in inference.mcmc; inference.coordinate and inference.svi know it"
        check(not isinstance(self.method, MCMCOptions), "start_from", self.run.start_from, able)
        epochs = self.fit.pretrain_epochs
        check(not epochs, "pretrain_epochs", epochs, "0 with --start-from, which keeps the networks of the run")

    def _check_ratings(self) -> None:
        """Raise InputError where the rating likelihood does not go with the algorithm, the guide or the biases."""
        name, own, structured = self.model.rating_likelihood, self.model.rating_facts, self.fit.guide == "structured"
        closed = [known for known, facts in RATINGS.items() if facts.conjugate]
        exact = [known for known in closed if RATINGS[known].exact]
        flag = "rating_likelihood"
        if isinstance(self.method, CoordinateOptions):
            must = ", ".join(closed) + " in inference.coordinate, which needs closed forms; others run in inference.svi"
            check(own.conjugate, flag, name, must)
        elif isinstance(self.method, MCMCOptions):
            must = ", ".join(exact) + " in inference.mcmc; bounds run in inference.coordinate, all in inference.svi"
            check(own.conjugate and own.exact, flag, name, must)
            check(self.model.biases == "off", "biases", "on", "off in inference.mcmc; others know them")
            if self.model.has_content is not False:
                check_normalised(self.model.content_likelihood, self.model.content_likelihood_args)
        else:
            must = ", ".join(exact) + " with --guide structured in inference.svi"
            check(not structured or (own.conjugate and own.exact), flag, name, must)

    def _without_content(self) -> None:
        """Nothing is pre-trained, and there is no q(v|z); InputError where one of these was asked for."""
        name, guide = self.model.model, self.fit.guide
        check(guide != "structured", "guide", guide, f"mean-field with --model {name}, which has no z")
        contents = f"left out with --model {name}, which reads no content"
        check(not self.data.contents, "contents", self.data.contents, contents)
        check(not self.model.content, "content", self.model.content, contents)
        object.__setattr__(self, "fit", replace(self.fit, pretrain_epochs=0, kl_warmup=None, learning_rate=0.0))

    def for_model(self, has_content: bool, staged: bool = False) -> Options:
        """The same once it is known whether the model, a class of one's own, reads contents, and when.

        One that is ``staged`` looks at them after the ratings: nothing is pre-trained.
        """
        if self.model.has_content is not None or (has_content and not staged):
            return self
        if staged:
            return replace(self, fit=replace(self.fit, pretrain_epochs=0, kl_warmup=None))
        changed = replace(self)
        changed._without_content()
        return changed

    def for_contents(self, contents: dict[str, Any]) -> Options:
        """The same with the likelihood that ``auto`` stands for in a data set of these contents.

        Raises InputError unless likelihood and network are for the contents that there are.
        """
        model = self.model
        if model.has_content is False or (model.has_content is None and self.fit.pretrain_epochs == 0):
            return self
        if not contents and model.has_content is None:
            return self  # a class of one's own may read none
        if not contents:
            problem = f"the data have no content of the items, which --model {model.model} is of"
            table = "a table with columns item and text (--columns text=NAME, where it is called NAME)"
            raise InputError(problem, f"add --items FILE, {table}, or take --model pmf")
        if model.content_likelihood == AUTO:
            likelihood, arguments = choose(contents, model.content_likelihood_args, model.content)
            model = replace(model, content_likelihood=likelihood, content_likelihood_args=arguments)
        arguments = model.content_likelihood_args
        check_kinds(contents, model.content_likelihood, arguments, model.content, model.network, self.fit.start)
        return self if model is self.model else replace(self, model=model)

    @staticmethod
    def classes(method: str) -> tuple[type, ...]:
        """The option classes of an inference module, "svi", "coordinate" or "mcmc", in the order of the fields."""
        if method not in METHODS:
            raise InputError(f"there is no inference module {method!r}", "use one of " + ", ".join(METHODS))
        return (DataOptions, ModelOptions, FitOptions, METHODS[method], RunOptions)

    @classmethod
    def of(cls, method: str = "svi", **values: Any) -> Options:
        """From flat keywords, defaults for the rest; InputError with the nearest name for an unknown one."""
        classes = cls.classes(method)
        known = {f.name: part for part in classes for f in fields(part)}
        for name in values:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                raise InputError(f"unknown option {name!r}", f"did you mean {near[0]!r}?" if near else "see --help")
        return cls(*(part(**{n: v for n, v in values.items() if known[n] is part}) for part in classes))

    def to_dict(self) -> dict[str, Any]:
        """Every option, flat."""
        parts = (self.data, self.model, self.fit, self.method, self.run)
        return {f.name: getattr(part, f.name) for part in parts for f in fields(part)}

    @property
    def method_name(self) -> Method:
        """The inference module: "svi", "coordinate" or "mcmc"."""
        return next(name for name, part in METHODS.items() if isinstance(self.method, part))

    @property
    def kind(self) -> PosteriorKind:
        """The posterior's kind: point, mean-field (diagonal Normals), full (covariances), structured or draws."""
        if isinstance(self.method, MCMCOptions):
            return "draws"
        if self.fit.mode == "map":
            return "point"
        if isinstance(self.method, CoordinateOptions) and self.fit.guide == "mean-field" and not self.method.diagonal:
            return "full"
        return self.fit.guide

    @property
    def objective(self) -> Objective:
        """Name of what is maximised: the ELBO of ``bayes`` and the objective of ``map`` are different numbers.

        Draws maximise nothing: of theirs it is log p(R, X, U, V, Z), the mean over chains.
        """
        if isinstance(self.method, MCMCOptions):
            return "log_joint"
        return "map_objective" if self.fit.mode == "map" else "elbo"

    @property
    def tempered(self) -> bool:
        """True if the objective is no bound: lambda_r or the weight of the KL is not 1."""
        return self.model.lambda_r != 1 or self.fit.kl_weight != 1
