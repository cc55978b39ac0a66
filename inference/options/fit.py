"""Options of how belief is updated, whatever the algorithm."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from inference.kinds import Dtype, Guide, Hide, Kernel, Mode
from inference.options.checking import check, check_words
from models.kinds import StartKind


@dataclass(frozen=True)
class FitOptions:
    """How belief is updated: point estimates or full variational Bayes, and how long.

    Parameters:
        mode: map (point estimates of u and v) or bayes (their posteriors).
        guide: The posterior of bayes: mean-field q(u)q(v)q(z), or structured with q(v|z).
        start: Of the networks: whitened (for narrow layers) or svd (for layers at least as wide as the factors; not for
            convolutions of images).
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
        tune: Short fits of a part of the training pairs by which b, the shrinkages and --cold-scale are found once
            contents are known, from those given, and whether networks of fewer epochs, or as they started, rank
            better; 0 takes these as they are.
        hide: Which training pairs --tune hides: a random fifth of each user's (random), the latest fifth of each user's
            (last), the latest fifth of all (latest), users without any other among them, or all those of some items
            (items); auto is what the split holds out: latest with --split time, last with --split last, items with
            --split items, else random.
        validate_every: Epochs between looks at the validation recall, where there is a validation part.
        patience: Looks without a better validation recall after which the fit stops; 0 never stops early.
        seed: Of everything random in the fit.
        device: Where tensors live (cpu, cuda, cuda:0).
        dtype: Floating-point type.
        threads: CPU threads; 0 takes as many as there are cores.
        kernel: What solves the rows of closed forms: numba (compiled, of the extra fast), torch, or auto, which is
            numba where it is installed; the same to rounding.
    """

    mode: Mode = "bayes"
    guide: Guide = "mean-field"
    start: StartKind = "whitened"
    pretrain_epochs: int = 8
    epochs: int = 20
    batch_size: int = 0
    pretrain_learning_rate: float = 0.01
    learning_rate: float | None = None
    kl_weight: float = 1.0
    kl_warmup: int | None = None
    word_dropout: float | None = None
    part_dropout: float = 0.0
    tune: int = 0
    hide: Hide = "auto"
    validate_every: int = 5
    patience: int = 0
    seed: int = 0
    device: str = "cpu"
    dtype: Dtype = "float32"
    threads: int = 0
    kernel: Kernel = "auto"

    def __post_init__(self) -> None:
        check_words(self)
        check(self.mode == "bayes" or self.guide == "mean-field", "guide", self.guide, "left out with --mode map")
        for name in ("pretrain_epochs", "epochs", "batch_size", "kl_warmup", "patience", "threads", "seed", "tune"):
            check((getattr(self, name) or 0) >= 0, name, getattr(self, name), "0 or more")
        check(self.validate_every >= 1, "validate_every", self.validate_every, "at least 1")
        rate = self.pretrain_learning_rate
        check(0 < rate < math.inf, "pretrain_learning_rate", rate, "a finite number above 0")
        check(0 <= (self.learning_rate or 0) < math.inf, "learning_rate", self.learning_rate, "0 or more, and finite")
        check(0 <= self.kl_weight < math.inf, "kl_weight", self.kl_weight, "a finite number, 0 or more")
        for name in ("word_dropout", "part_dropout"):
            check(0 <= (getattr(self, name) or 0) < 1, name, getattr(self, name), "at least 0 and below 1")
        warmup = self.kl_warmup or 0
        check(warmup <= self.pretrain_epochs, "kl_warmup", self.kl_warmup, "no more than --pretrain-epochs")
        check(self.seed < 2**63, "seed", self.seed, "below 2^63")
        check(bool(re.fullmatch(r"cpu|cuda(:\d+)?", self.device)), "device", self.device, "cpu, cuda or cuda:N")
