"""Options of the fit commands: frozen dataclasses, checked on construction; the command lines are made from them.

Every field is one flag (``train_per_user`` is ``--train-per-user``), one key of a YAML file and one keyword of
:func:`inference.fit`. No heavy import here: ``--help`` must answer at once.
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass, field, fields, replace
from typing import Any

from inference.bounds import check_all
from inference.compatibility import AUTO, check_content, check_kinds, check_normalised, choose
from inference.rating_facts import RATINGS, RatingFacts
from models.catalogue import MODELS
from pyro_cvae.data.reading import Reading, parse_columns
from pyro_cvae.data.sources import parse_all
from pyro_cvae.errors import InputError


def _check(ok: bool, flag: str, value: object, must: str) -> None:
    if not ok:
        raise InputError(f"--{flag.replace('_', '-')} is {value!r}, but it must be {must}")


def _choice(flag: str, value: str, choices: tuple[str, ...]) -> None:
    _check(value in choices, flag, value, "one of " + ", ".join(choices))


@dataclass(frozen=True)
class DataOptions:
    """What is fitted: the data, and how it is split into training and test.

    Parameters:
        data: A name (simulated, simulated-gaussian, simulated-stars, citeulike-a, citeulike-t) or a path to a folder or
            a file.
        items: A table of items and their texts, where ``data`` is a table of interactions.
        contents: Further contents of the items, each NAME[=[KIND:]PATH], with KIND words, tokens, images or vectors.
            Without a path it is one that the data have: a column of the items' table, titles, title-tokens, tags.
        ratings: What the column ``rating`` of a table says (clicks: a pair above 0 is a 1; stars: the rating; auto:
            stars for the rating likelihood normal, else clicks).
        min_rating: Least rating of a pair that is a choice, of clicks; by default any above 0.
        columns: What the columns of tables are called, each NAME=COLUMN, with NAME user, item, rating, weight, time,
            text or title.
        separator: Of text tables (a character, or comma, semicolon, tab, pipe, space); by default told by the header.
        encoding: Of text tables, for instance latin-1; by default UTF-8, or what a byte order mark says.
        tokenizer: What turns texts of tables into words (words, unicode-words, bigrams, or the path of a function);
            bigrams are of scripts without blanks between words.
        html: Take tags and entities out of texts (strip) or leave them (keep).
        split: How training and test are told apart (per-user, time, items, cells; none: all pairs train, nothing is
            evaluated); ignored with ``train_file`` and ``test_file``.
        train_per_user: Training items per user (the paper's P) of a per-user split.
        train_file: A file of training pairs: a table with columns user and item, or rows in CiteULike's format. Without
            ``test_file`` all other pairs are test. Without ``data`` (and with ``items``) the files are the data.
        validation_file: A file of validation pairs, in the same forms.
        test_file: A file of test pairs, in the same forms; without ``train_file`` all other pairs train.
        test_fraction: Share of test pairs of a split by time or by cells, or of held-out items of a split by items.
        split_seed: Seed of the split.
        validation: Share of the training ratings (for P = 1: of the users) that early stopping and tuning look at.
        scaling: How word counts become content (auto, none, binary, word-max, row-max, tfidf,
            tfidf-counts).
    """

    data: str = "simulated"
    items: str | None = None
    contents: tuple[str, ...] = ()
    ratings: str = "auto"
    min_rating: float | None = None
    columns: tuple[str, ...] = ()
    separator: str = ""
    encoding: str = ""
    tokenizer: str = "words"
    html: str = "strip"
    split: str = "per-user"
    train_per_user: int = 10
    train_file: str | None = None
    validation_file: str | None = None
    test_file: str | None = None
    test_fraction: float = 0.2
    split_seed: int = 0
    validation: float = 0.0
    scaling: str = "auto"

    def __post_init__(self) -> None:
        parse_all(self.contents)
        _check(self.ratings != "stars" or self.min_rating is None, "min_rating", self.min_rating, "left out with stars")
        self.reading  # noqa: B018
        _choice("ratings", self.ratings, ("auto", "clicks", "stars"))
        _choice("split", self.split, ("per-user", "time", "items", "cells", "none"))
        _check(self.train_per_user >= 1, "train_per_user", self.train_per_user, "at least 1")
        _check(0 <= self.split_seed < 2**32, "split_seed", self.split_seed, "0 or more and below 2^32")
        _check(0 < self.test_fraction < 1, "test_fraction", self.test_fraction, "between 0 and 1")
        _check(0 <= self.validation < 1, "validation", self.validation, "at least 0 and below 1")
        parts = self.train_file or self.test_file
        alone = "beside --train-file or --test-file"
        _check(self.validation_file is None or parts is not None, "validation_file", self.validation_file, alone)
        both = self.validation_file is not None and self.validation > 0
        _check(not both, "validation", self.validation, "left out with --validation-file")
        _choice("scaling", self.scaling, ("auto", "none", "binary", "word-max", "row-max", "tfidf", "tfidf-counts"))

    @property
    def reading(self) -> Reading:
        """How tables are read; InputError where a part of it is wrong."""
        return Reading(
            parse_columns(self.columns),
            self.separator,
            self.encoding,
            self.tokenizer,
            self.html,
            self.min_rating,
            need_time=self.split == "time" and self.train_file is None and self.test_file is None,
        )


@dataclass(frozen=True)
class ModelOptions:
    """What is believed: the generative story and its networks.

    Parameters:
        model: The story: cvae (items around their contents), pmf (ratings alone, no content is read), or the path of a
            class.
        model_args: Arguments of that class.
        factors: Number of latent factors K.
        content_likelihood: p(x|z): multinomial, pseudo-multinomial, bernoulli, pseudo-bernoulli, categorical, poisson,
            negative-binomial, normal, tokens, product (of several contents), the path of a class, or auto: what suits
            the kind of each content, and of several their product.
        content_likelihood_args: Arguments of that class.
        content: Which of the items' contents it is of; by default their text, or the only one.
        network: Encoder and decoder (auto, mlp, convolutional, recurrent, or the path of a class); auto takes what
            suits each content.
        network_args: Arguments of that class.
        hidden: Widths of the encoder's layers, from the content inwards; the decoder mirrors them.
        activation: Of the hidden layers (sigmoid, tanh, relu, softplus).
        radius: Length that the encoder's means have; 0 leaves it free.
        tied: Share the layers' matrices between encoder and decoder (of words and tokens).
        encoder_input: What the encoder reads: the words weighted by tfidf, or the same content as the likelihood.
        rating_likelihood: p(R|U,V): confidence-normal (the paper's), normal (stars), bernoulli (clicks),
            bernoulli-bound (clicks, with closed forms), poisson (counts), or the path of a class.
        rating_likelihood_args: Arguments of that class.
        biases: A global mean and biases of users and items in the scores (auto, on, off); auto leaves them out of
            confidence-normal alone.
        lambda_b: Precision of the biases' priors; 0 takes 1, and for normal what predicts training ratings best.
        lambda_u: Precision of the users' prior; 0 takes that of user_shrinkage.
        lambda_v: Precision of the items around their content, v - z; 0 takes that of item_shrinkage.
        user_shrinkage: lambda_u in units of a s^2, s the root mean square length of the content means; 0 takes the
            rating likelihood's, for normal what predicts training ratings best.
        item_shrinkage: lambda_v in units of a / s^2; 0 takes the rating likelihood's.
        lambda_r: Factor of the content's terms; with any value but 1 the objective is tempered.
        lambda_w: Precision of the prior of the networks' weights and biases.
        a: Precision (confidence) of a stored rating that states none.
        b: Precision of all other cells.
        unrated: Items without a training rating have no column (masked) or a column of zeros (zeros, the paper's).
        parametrization: Draw v around z (centred, the paper's) or v_dagger around 0 (non-centred).
    """

    model: str = "cvae"
    model_args: dict[str, Any] = field(default_factory=dict)
    factors: int = 50
    content_likelihood: str = "multinomial"
    content_likelihood_args: dict[str, Any] = field(default_factory=dict)
    content: str = ""
    network: str = "auto"
    network_args: dict[str, Any] = field(default_factory=dict)
    hidden: tuple[int, ...] = (200, 100)
    activation: str = "sigmoid"
    radius: float = 0.0
    tied: bool = True
    encoder_input: str = "tfidf"
    rating_likelihood: str = "confidence-normal"
    rating_likelihood_args: dict[str, Any] = field(default_factory=dict)
    biases: str = "auto"
    lambda_b: float = 0.0
    lambda_u: float = 0.0
    lambda_v: float = 0.0
    user_shrinkage: float = 0.0
    item_shrinkage: float = 0.0
    lambda_r: float = 1.0
    lambda_w: float = 0.01
    a: float = 100.0
    b: float = 1.0
    unrated: str = "masked"
    parametrization: str = "centred"

    def __post_init__(self) -> None:
        if not {".", ":"} & set(self.model):
            _choice("model", self.model, (*MODELS, "the path of a class"))
        _check(self.factors >= 1, "factors", self.factors, "at least 1")
        _check(
            len(self.hidden) >= 1 and all(width >= 1 for width in self.hidden), "hidden", self.hidden, "widths above 0"
        )
        _choice("activation", self.activation, ("sigmoid", "tanh", "relu", "softplus"))
        _check(0 <= self.radius < math.inf, "radius", self.radius, "a finite number, 0 or more")
        _choice("encoder_input", self.encoder_input, ("tfidf", "same"))
        if not {".", ":"} & set(self.rating_likelihood):
            _choice("rating_likelihood", self.rating_likelihood, (*RATINGS, "the path of a class"))
        _choice("biases", self.biases, ("auto", "on", "off"))
        own = self.rating_facts
        if self.biases == "auto":
            object.__setattr__(self, "biases", "on" if own.biases else "off")
        for name in ("lambda_u", "lambda_v", "lambda_b", "user_shrinkage", "item_shrinkage"):
            _check(0 <= getattr(self, name) < math.inf, name, getattr(self, name), "a finite number, 0 or more")
        for name in ("lambda_r", "lambda_w", "a"):
            _check(0 < getattr(self, name) < math.inf, name, getattr(self, name), "a finite number above 0")
        _check(0 <= self.b < math.inf, "b", self.b, "a finite number, 0 or more")
        _choice("unrated", self.unrated, ("masked", "zeros"))
        _choice("parametrization", self.parametrization, ("centred", "non-centred"))

    @property
    def has_content(self) -> bool | None:
        """Whether the model reads the items' contents; ``None`` of a class of one's own, before it is imported."""
        return MODELS[self.model].has_content if self.model in MODELS else None

    @property
    def rating_facts(self) -> RatingFacts:
        """What is known of the rating likelihood; of a class of one's own, that it might do anything."""
        return RATINGS.get(self.rating_likelihood, RatingFacts())


@dataclass(frozen=True)
class FitOptions:
    """How belief is updated: point estimates or full variational Bayes, and how long.

    Parameters:
        mode: map (point estimates of u and v) or bayes (their posteriors).
        guide: The posterior of bayes: mean-field q(u)q(v)q(z), or structured with q(v|z).
        start: Of the networks: whitened (for narrow layers) or svd (for layers at least as wide as the factors; not for
            convolutions).
        pretrain_epochs: Epochs of the content alone, before ratings are seen.
        epochs: Epochs of everything together.
        batch_size: Items per step, each exact over users; 0 takes a fiftieth of the items, at least 32, at most 512.
        pretrain_learning_rate: Adam's step of the networks in pre-training.
        learning_rate: Adam's step of the networks in joint training; 0 holds them. By default 0.003, 0 for normal.
        kl_weight: Weight of KL(q(z|x) || p(z)); with any value but 1 the objective is tempered.
        kl_warmup: Epochs of pre-training over which that weight rises from 0; by default half of them of images,
            vectors and a product (a content that items lack is one), else none.
        word_dropout: Share of the encoder's input words dropped at random while training, and of the tokens that a
            recurrent decoder is told; by default none of the first and half of the second.
        part_dropout: Share of the parts of a product hidden from the encoder at random while training.
        validate_every: Epochs between looks at the validation recall, where there is a validation part.
        patience: Looks without a better validation recall after which the fit stops; 0 never stops early.
        seed: Of everything random in the fit.
        device: Where tensors live (cpu, cuda, cuda:0).
        dtype: Floating-point type (float32, float64).
        threads: CPU threads; 0 takes as many as there are cores.
    """

    mode: str = "bayes"
    guide: str = "mean-field"
    start: str = "whitened"
    pretrain_epochs: int = 8
    epochs: int = 20
    batch_size: int = 0
    pretrain_learning_rate: float = 0.01
    learning_rate: float | None = None
    kl_weight: float = 1.0
    kl_warmup: int | None = None
    word_dropout: float | None = None
    part_dropout: float = 0.0
    validate_every: int = 5
    patience: int = 0
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"
    threads: int = 0

    def __post_init__(self) -> None:
        _choice("mode", self.mode, ("map", "bayes"))
        _choice("start", self.start, ("whitened", "svd"))
        _choice("guide", self.guide, ("mean-field", "structured"))
        _check(self.mode == "bayes" or self.guide == "mean-field", "guide", self.guide, "left out with --mode map")
        for name in ("pretrain_epochs", "epochs", "batch_size", "kl_warmup", "patience", "threads", "seed"):
            _check((getattr(self, name) or 0) >= 0, name, getattr(self, name), "0 or more")
        _check(self.validate_every >= 1, "validate_every", self.validate_every, "at least 1")
        rate = self.pretrain_learning_rate
        _check(0 < rate < math.inf, "pretrain_learning_rate", rate, "a finite number above 0")
        _check(0 <= (self.learning_rate or 0) < math.inf, "learning_rate", self.learning_rate, "0 or more, and finite")
        _check(0 <= self.kl_weight < math.inf, "kl_weight", self.kl_weight, "a finite number, 0 or more")
        for name in ("word_dropout", "part_dropout"):
            _check(0 <= (getattr(self, name) or 0) < 1, name, getattr(self, name), "at least 0 and below 1")
        warmup = self.kl_warmup or 0
        _check(warmup <= self.pretrain_epochs, "kl_warmup", self.kl_warmup, "no more than --pretrain-epochs")
        _check(self.seed < 2**63, "seed", self.seed, "below 2^63")
        _check(bool(re.fullmatch(r"cpu|cuda(:\d+)?", self.device)), "device", self.device, "cpu, cuda or cuda:N")
        _choice("dtype", self.dtype, ("float32", "float64"))


@dataclass(frozen=True)
class SVIOptions:
    """Of stochastic variational inference alone: the gradient steps of u and v.

    Parameters:
        factor_learning_rate: Adam's step of u and v, in standard deviations of their priors, and of the rating
            likelihood's own parameters.
        init_scale: Standard deviations of q(u) and q(v) at the start, in those of their priors.
    """

    factor_learning_rate: float = 0.03
    init_scale: float = 0.4

    def __post_init__(self) -> None:
        for name in ("factor_learning_rate", "init_scale"):
            _check(0 < getattr(self, name) < math.inf, name, getattr(self, name), "a finite number above 0")


@dataclass(frozen=True)
class CoordinateOptions:
    """Of coordinate ascent alone: the closed-form sweeps over u and v.

    Parameters:
        sweeps: Sweeps over u and v at the end, with the networks held; after each epoch there is one besides.
        diagonal: In bayes, diagonal covariances of u and v in place of full ones, for less time and memory.
        max_memory: GiB that full covariances may take; above it the diagonal ones are taken, and named so.
        learn_precisions: In bayes, learn lambda_u and lambda_v within the sweeps.
        precision_prior: Weight of the Gamma priors around --lambda-u and --lambda-v, in shares of the data.
    """

    sweeps: int = 10
    diagonal: bool = False
    max_memory: float = 4.0
    learn_precisions: bool = False
    precision_prior: float = 1.0

    def __post_init__(self) -> None:
        _check(self.sweeps >= 1, "sweeps", self.sweeps, "at least 1")
        for name in ("max_memory", "precision_prior"):
            _check(0 < getattr(self, name) < math.inf, name, getattr(self, name), "a finite number above 0")


@dataclass(frozen=True)
class MCMCOptions:
    """Of Markov chain Monte Carlo alone: the networks are held after pre-training, --epochs counts for nothing.

    Parameters:
        draws: Stored draws of each chain.
        warmup: Steps before the first of them, in which Hamiltonian steps find their sizes.
        chains: Independent chains.
        thin: Sweeps over u, v and z in a step, of which the last is stored.
        leapfrog: Gradients of a Hamiltonian step of z.
        max_memory: GiB that the chains may take; data that need more are refused.
    """

    draws: int = 1000
    warmup: int = 300
    chains: int = 4
    thin: int = 1
    leapfrog: int = 5
    max_memory: float = 2.0

    def __post_init__(self) -> None:
        for name in ("draws", "warmup", "chains", "thin", "leapfrog"):
            _check(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        _check(0 < self.max_memory < math.inf, "max_memory", self.max_memory, "a finite number above 0")


METHODS: dict[str, type[SVIOptions] | type[CoordinateOptions] | type[MCMCOptions]] = {
    "svi": SVIOptions,
    "coordinate": CoordinateOptions,
    "mcmc": MCMCOptions,
}
"""The inference modules and their own options."""


@dataclass(frozen=True)
class RunOptions:
    """Where the run goes.

    Parameters:
        out: The run folder; by default runs/DATA-MODE.
        resume: Go on with a run that was stopped, to the same numbers.
        overwrite: Replace the run folder if it exists.
        checkpoint_seconds: Least time between two checkpoints.
        quiet: No progress bar; where stderr is no terminal, no lines of progress.
        format: How the result is printed (table, csv, json).
    """

    out: str | None = None
    resume: bool = False
    overwrite: bool = False
    checkpoint_seconds: float = 20.0
    quiet: bool = False
    format: str = "table"

    def __post_init__(self) -> None:
        _choice("format", self.format, ("table", "csv", "json"))
        _check(not (self.resume and self.overwrite), "resume", self.resume, "given without --overwrite")
        _check(self.checkpoint_seconds >= 0, "checkpoint_seconds", self.checkpoint_seconds, "0 or more")


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
        else:
            self._without_content()
        centred = self.model.parametrization == "centred"
        if self.fit.learning_rate is None:
            rate = 0.0 if self.model.rating_facts.explicit else 0.003
            object.__setattr__(self, "fit", replace(self.fit, learning_rate=rate))
        self._check_ratings()
        if self.data.ratings == "auto":
            meant = "stars" if self.model.rating_facts.explicit else "clicks"
            object.__setattr__(self, "data", replace(self.data, ratings=meant))
        _check(centred or self.fit.guide != "structured", "guide", self.fit.guide, "mean-field when non-centred")
        wide = self.fit.start != "svd" or model.has_content is False or min(self.model.hidden) >= self.model.factors
        _check(wide, "start", "svd", f"whitened where a layer is narrower than the {self.model.factors} factors")
        if isinstance(self.method, CoordinateOptions):
            bayes, structured = self.fit.mode == "bayes", self.fit.guide == "structured"
            _check(centred, "parametrization", self.model.parametrization, "centred in inference.coordinate")
            _check(bayes or not self.method.diagonal, "diagonal", True, "left out with --mode map")
            _check(bayes or not self.method.learn_precisions, "learn_precisions", True, "left out with --mode map")
            _check(not (structured and self.method.diagonal), "diagonal", True, "left out with --guide structured")
        if isinstance(self.method, MCMCOptions):
            where, others = "in inference.mcmc", "use inference.coordinate or inference.svi"
            _check(self.fit.mode == "bayes", "mode", self.fit.mode, f"bayes {where}; for points {others}")
            for name, part in (("lambda_r", self.model), ("kl_weight", self.fit)):
                must = f"1 {where}, since a tempered objective has no posterior; {others}"
                _check(getattr(part, name) == 1, name, getattr(part, name), must)
            _check(self.fit.guide == "mean-field", "guide", self.fit.guide, f"left out {where}, which needs none")
            _check(centred, "parametrization", self.model.parametrization, f"centred {where}: the density is the same")
            _check(self.fit.patience == 0, "patience", self.fit.patience, f"left out {where}: chains run to their end")

    def _check_ratings(self) -> None:
        """Raise InputError where the rating likelihood does not go with the algorithm, the guide or the biases."""
        name, own, structured = self.model.rating_likelihood, self.model.rating_facts, self.fit.guide == "structured"
        closed = [known for known, facts in RATINGS.items() if facts.conjugate]
        exact = [known for known in closed if RATINGS[known].exact]
        flag = "rating_likelihood"
        if isinstance(self.method, CoordinateOptions):
            must = ", ".join(closed) + " in inference.coordinate, which needs closed forms; others run in inference.svi"
            _check(own.conjugate, flag, name, must)
        elif isinstance(self.method, MCMCOptions):
            must = ", ".join(exact) + " in inference.mcmc; bounds run in inference.coordinate, all in inference.svi"
            _check(own.conjugate and own.exact, flag, name, must)
            _check(self.model.biases == "off", "biases", "on", "off in inference.mcmc; others know them")
            if self.model.has_content is not False:
                check_normalised(self.model.content_likelihood, self.model.content_likelihood_args)
        else:
            must = ", ".join(exact) + " with --guide structured in inference.svi"
            _check(not structured or (own.conjugate and own.exact), flag, name, must)

    def _without_content(self) -> None:
        """Nothing is pre-trained, and there is no q(v|z); InputError where one of these was asked for."""
        name = self.model.model
        _check(
            self.fit.guide != "structured", "guide", self.fit.guide, f"mean-field with --model {name}, which has no z"
        )
        contents = f"left out with --model {name}, which reads no content"
        _check(not self.data.contents, "contents", self.data.contents, contents)
        _check(not self.model.content, "content", self.model.content, contents)
        object.__setattr__(self, "fit", replace(self.fit, pretrain_epochs=0, kl_warmup=None, learning_rate=0.0))

    def for_model(self, has_content: bool) -> Options:
        """The same once it is known whether the model, a class of one's own, reads contents."""
        if self.model.has_content is not None or has_content:
            return self
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
            raise InputError(problem, "add --items FILE, a table with columns item and text, or take --model pmf")
        if model.content_likelihood == AUTO:
            likelihood, arguments = choose(contents, model.content_likelihood_args, model.content)
            model = replace(model, content_likelihood=likelihood, content_likelihood_args=arguments)
        check_kinds(contents, model.content_likelihood, model.content_likelihood_args, model.content, model.network)
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
    def method_name(self) -> str:
        """The inference module: "svi", "coordinate" or "mcmc"."""
        return next(name for name, part in METHODS.items() if isinstance(self.method, part))

    @property
    def kind(self) -> str:
        """The posterior's kind: point, mean-field (diagonal Normals), full (covariances), structured or draws."""
        if isinstance(self.method, MCMCOptions):
            return "draws"
        if self.fit.mode == "map":
            return "point"
        if isinstance(self.method, CoordinateOptions) and self.fit.guide == "mean-field" and not self.method.diagonal:
            return "full"
        return self.fit.guide

    @property
    def objective(self) -> str:
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
