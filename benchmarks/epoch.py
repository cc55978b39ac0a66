"""Time and memory of one epoch of joint training, beside the same model all dense in plain torch.

``python -m benchmarks.epoch`` simulates data of citeulike-t's size; ``--data`` and ``--train-file`` take real ones.
Each variant runs in a process of its own, so that its peak memory is its own; epochs of the two take turns, so that
other work on the machine slows both. Before any epoch both compute the objective and its gradient on one minibatch,
at the same parameters and the same draw of z, and must agree. The variant "drawn words" is the package with
``--content-likelihood.subsample``: an estimate of the same objective, which the dense model has no part in.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.study.arguments import add_threads, as_command, command
from benchmarks.study.machine import Load, peak_mib
from benchmarks.study.tables import show, verdict
from benchmarks.study.turns import in_turns, ratio
from benchmarks.study.workers import ask, worker

VARIANTS = ("package", "drawn words", "dense")
TOLERANCE = 1e-4  # float32: of each part of the objective, relative; of each gradient, relative to its largest entry
TARGETS = {"package": {"seconds": 1.5, "peak_mib": 5.0}, "drawn words": {"seconds": 4.0}}
"""What dense takes over what a variant of the package takes, at least."""
NAMES = {"seconds": "the time", "peak_mib": "the memory"}
SEED = 0

# --- the command: nothing heavy is imported here, because a child's ru_maxrss begins at its parent's size -------------


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Run the benchmark, print its table and return its rows, one a mode and variant."""
    options = _parser().parse_args(arguments)
    machine, rows = Load(), []
    with tempfile.TemporaryDirectory() as folder:
        size = _ask_once({"task": "data", "folder": folder, **vars(options)})
        for mode in options.modes:
            how = {"threads": options.threads, "subsample": options.subsample}
            rows += _compare({"mode": mode, "folder": folder, **how}, options.epochs)
    _print(rows, f"{size}\n{machine.told(options.threads)}, {options.epochs} epochs each, in turns")
    return rows


def _parser() -> ArgumentParser:
    parser = command("epoch", __doc__)
    parser.add_argument("--data", help="a data set's name, folder or file; by default one is simulated")
    parser.add_argument("--train-file", help="training rows of --data in CiteULike's format; else all pairs are")
    parser.add_argument("--modes", nargs="+", choices=("map", "bayes"), default=("map", "bayes"))
    parser.add_argument("--epochs", type=int, default=3, help="timed epochs of each variant")
    add_threads(parser, 1, " of each variant")
    parser.add_argument("--subsample", type=int, default=1500, help="words drawn a step by the variant 'drawn words'")
    for name, size in {"users": 7947, "items": 25975, "words": 20000, "pairs": 53399, "words-per-item": 19}.items():
        parser.add_argument(f"--{name}", type=int, default=size, help="of the simulated data")
    return parser


def _compare(task: dict[str, Any], n_epochs: int) -> list[dict[str, Any]]:
    """Rows of all variants of one mode, timed in turns."""
    with ExitStack() as stack:
        words = {"package": 0, "drawn words": task["subsample"], "dense": 0}
        workers = {
            name: stack.enter_context(_worker({**task, "task": name, "subsample": words[name]})) for name in words
        }
        ask(workers["package"], "check")
        error = ask(workers["dense"], "check")
        if not all(value <= TOLERANCE for value in error.values()):
            raise SystemExit(f"error: package and dense model differ in {task['mode']} mode: {error}")
        timers = {variant: partial(ask, workers[variant], "epoch") for variant in VARIANTS}
        laps: dict[str, list[dict[str, float]]] = in_turns(timers, n_epochs, unrecorded=0)
        peaks = {variant: ask(process, "peak") for variant, process in workers.items()}
    rows = []
    for variant in VARIANTS:
        row = {"mode": task["mode"], "variant": variant, "peak_mib": peaks[variant], "error": max(error.values())}
        rows.append(row | {name: median(lap[name] for lap in laps[variant]) for name in ("seconds", "cpu_seconds")})
    for row in rows[:-1]:
        for name in ("seconds", "cpu_seconds"):
            slow, fast = ([lap[name] for lap in laps[variant]] for variant in ("dense", row["variant"]))
            row[f"{name}_ratio"] = ratio(slow, fast)
        row["peak_mib_ratio"] = peaks["dense"] / peaks[row["variant"]]
    return rows


def _print(rows: list[dict[str, Any]], caption: str) -> None:
    texts: list[list[str]] = []
    for row in rows:
        cells = [row["mode"], row["variant"]]
        for name, digits in (("seconds", 2), ("cpu_seconds", 2), ("peak_mib", 0)):
            times = row.get(f"{name}_ratio")
            cells += [f"{row[name]:,.{digits}f}", "" if times is None else f"{times:.2f}"]
        texts += [cells] if row["variant"] != VARIANTS[-1] else [cells, []]
    headings = ("mode", "variant", "s/epoch", "ratio", "CPU s/epoch", "ratio", "peak MiB", "ratio")
    show(headings, texts, left=2, title="One epoch of joint training")
    print(caption)
    for row in rows:
        for name, least in TARGETS.get(row["variant"], {}).items():
            times = row[f"{name}_ratio"]
            text = f"{row['mode']}: dense takes {times:.2f} times {NAMES[name]} of {row['variant']}"
            verdict(times >= least, f"{text} (at least {least:g})")
    error = max(row["error"] for row in rows)
    print(f"objective and gradient of package and dense agree to {error:.0e}")


@contextmanager
def _worker(task: dict[str, Any]) -> Iterator[subprocess.Popen[str]]:
    with worker("benchmarks.epoch", task.get("threads", 1)) as process:
        ask(process, task)
        yield process


def _ask_once(task: dict[str, Any]) -> Any:
    task = {name: os.path.abspath(v) if name.endswith("file") and v else v for name, v in task.items()}
    if task["data"] and os.path.exists(task["data"]):
        task["data"] = os.path.abspath(task["data"])
    with _worker(task) as process:
        return ask(process, "size")


# --- the workers -----------------------------------------------------------------------------------------------------


def work() -> None:
    """A worker: a line of JSON in, a line of JSON out; the first line says what it is."""
    out, sys.stdout = sys.stdout, sys.stderr
    task = json.loads(sys.stdin.readline())
    measured: Any = {"data": _Data, "dense": _Dense}.get(task["task"], _Package)(task)
    print("null", file=out, flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        if question == "epoch":
            wall, cpu = time.perf_counter(), time.process_time()
            measured.epoch()
            answer: Any = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
        elif question == "peak":
            answer = peak_mib()
        else:
            answer = getattr(measured, question)()
        print(json.dumps(answer), file=out, flush=True)


class _Data:
    """Writes the arrays that both variants read: word counts and training pairs."""

    def __init__(self, task: dict[str, Any]) -> None:
        import numpy as np
        from scipy import sparse

        from benchmarks.study.sparse import distinct_pairs

        if task["data"]:
            from pyro_cvae.data.registry import load_dataset
            from pyro_cvae.data.splits import from_file

            dataset = load_dataset(task["data"])
            train = from_file(dataset, task["train_file"]).train if task["train_file"] else dataset.interactions
            counts, users, items, n_users = dataset.content.counts, train.users, train.items, train.n_users
        else:
            n_users, n_items, n_words = task["users"], task["items"], task["words"]
            users, items = distinct_pairs(n_users, n_items, task["pairs"]).nonzero()
            counts = distinct_pairs(n_items, n_words, n_items * task["words_per_item"])
        parts = {name: getattr(sparse.csr_matrix(counts), name) for name in ("data", "indices", "indptr", "shape")}
        np.savez(Path(task["folder"]) / "arrays.npz", users=users, items=items, n_users=n_users, **parts)
        self.text = (
            f"{'real' if task['data'] else 'simulated'} data: {n_users:,} users, {counts.shape[0]:,} items, "
            f"{counts.shape[1]:,} words, "
            f"{len(users):,} pairs, {counts.nnz / counts.shape[0]:.1f} distinct words an item"
        )

    def size(self) -> str:
        return self.text


def _read(task: dict[str, Any]) -> tuple[Any, Any]:
    """Word counts and training pairs, as the package holds them."""
    import numpy as np
    import torch
    from scipy import sparse

    from benchmarks.study.arguments import compute_with
    from pyro_cvae.data.interactions import Interactions

    compute_with(task["threads"])
    torch.manual_seed(SEED)
    with np.load(Path(task["folder"]) / "arrays.npz") as arrays:
        counts = sparse.csr_matrix(tuple(arrays[name] for name in ("data", "indices", "indptr")), arrays["shape"])
        sizes = {"n_users": int(arrays["n_users"]), "n_items": counts.shape[0]}
        return counts, Interactions.from_arrays(arrays["users"], arrays["items"], **sizes)


def _options(mode: str) -> Any:
    """The defaults, but the encoder reads x itself, because a dense peer would need a second matrix for tf-idf."""
    from inference.options import Options

    given = {"lambda_u": 10000.0, "lambda_v": 3.0}  # the dense model is told them too
    return Options.of(
        mode=mode, encoder_input="same", pretrain_epochs=0, epochs=10**6, **given
    )  # so many: the step stays


class _Package:
    """Joint training by ``inference.svi`` as it is."""

    def __init__(self, task: dict[str, Any]) -> None:
        import numpy as np

        from inference.algorithms.svi import SVI
        from models.build import content_likelihood, make_model, observe
        from pyro_cvae.data.content import Content
        from pyro_cvae.data.dataset import Dataset
        from pyro_cvae.data.splits import nothing_held_out

        self.options, self.folder = _options(task["mode"]), Path(task["folder"])
        counts, train = _read(task)
        likelihood = content_likelihood("multinomial", {"subsample": task["subsample"]})
        dataset = Dataset("epoch", train, Content(counts), np.arange(train.n_users), np.arange(train.n_items))
        observations, _ = observe(dataset, nothing_held_out(dataset), likelihood, self.options.model, "none")
        sizes = (train.n_users, train.n_items, counts.shape[1])
        self.svi = SVI(lambda: make_model(*sizes, likelihood, self.options.model), observations, self.options)
        self.state = self.svi.init()

    def check(self) -> None:
        """Write the parameters, a minibatch with its draw of z, the parts of the objective and its gradient."""
        import torch
        from pyro import poutine
        from safetensors.torch import save_file

        from inference.algorithms.elbo import SIGNS, NamedELBO

        model, guide = self.state.model, self.state.guide
        items = torch.randperm(model.n_items)[: self.svi.batch_size]
        batch = self.svi.observations.batch(items)
        torch.manual_seed(SEED)
        terms = NamedELBO().terms(model, guide, batch)
        (-NamedELBO().objective(terms) / model.n_items).backward()
        torch.manual_seed(SEED)
        z = poutine.trace(guide).get_trace(batch).nodes["z"]
        q = z["fn"].base_dist
        names = plain_names(model, guide)
        tensors = {f"start.{name}": parameter for name, parameter in names.items()}
        tensors |= {
            f"gradient.{name}": parameter.grad for name, parameter in names.items() if parameter.grad is not None
        }
        for name, value in terms.items():
            part = {"penalty": "weights"}.get(name, name.removeprefix("log_p_").removeprefix("kl_"))
            tensors[f"part.{part}"] = tensors.get(f"part.{part}", 0.0) + SIGNS[name] * value
        tensors |= {"items": batch.items, "noise": (z["value"] - q.loc) / q.scale}
        # Clones: Adam updates the parameters in place, and safetensors wants nothing shared.
        kept = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
        save_file(kept, self.folder / f"{self.options.fit.mode}.safetensors")
        self.state.optimizer.zero_grad(set_to_none=True)

    def epoch(self) -> None:
        self.state, _ = self.svi.step(self.state)


class _Dense:
    """The dense peer, from the package's starting point."""

    def __init__(self, task: dict[str, Any]) -> None:
        self.task = task

    def check(self) -> dict[str, float]:
        """Build the model from what the package wrote; errors of each part of the objective and of the gradient."""
        import torch
        from safetensors.torch import load_file

        from benchmarks.dense import DenseCVAE

        options = _options(self.task["mode"])
        counts, train = _read(self.task)
        x = torch.zeros(counts.shape)
        cells = counts.tocoo()
        x[torch.as_tensor(cells.row).long(), torch.as_tensor(cells.col).long()] = torch.as_tensor(cells.data).float()
        ratings = torch.zeros(train.n_items, train.n_users)
        confidences = torch.full_like(ratings, options.model.b)
        users, items = torch.as_tensor(train.users), torch.as_tensor(train.items)
        ratings[items, users] = 1.0
        confidences[items, users] = options.model.a
        confidences[torch.bincount(items, minlength=train.n_items) == 0] = 0.0  # an item without ratings has no column
        known = load_file(Path(self.task["folder"]) / f"{self.task['mode']}.safetensors")

        def part(prefix: str) -> dict[str, torch.Tensor]:
            return {name.removeprefix(prefix): t for name, t in known.items() if name.startswith(prefix)}

        self.model = DenseCVAE(part("start."), x, ratings, confidences, vars(options.model))
        self.batch_size = len(known["items"])
        parts = self.model.parts(known["items"], known["noise"])
        (-torch.stack(list(parts.values())).sum() / train.n_items).backward()
        want = part("part.")
        assert parts.keys() == want.keys(), (parts.keys(), want.keys())
        error = {name: abs(parts[name].item() / want[name].item() - 1) for name in want}
        total = sum(tensor.item() for tensor in want.values())
        error["objective"] = abs(sum(tensor.item() for tensor in parts.values()) / total - 1)
        for name, gradient in part("gradient.").items():
            difference = (self.model.p[name].grad - gradient).abs().max() / gradient.abs().max()
            error[f"gradient of {name}"] = difference.item()
        fit, factors = options.fit, options.method.factor_learning_rate
        sizes = {"u": options.model.lambda_u**-0.5, "v": (1 + 1 / options.model.lambda_v) ** 0.5}
        steps = {name: fit.learning_rate for name in self.model.p}
        steps |= {name: factors * sd for name, sd in sizes.items()}
        steps |= {f"{name}_log_scale": factors for name in sizes}
        groups = [{"params": [tensor], "lr": steps[name]} for name, tensor in self.model.p.items()]
        self.optimizer = torch.optim.Adam(groups, fused=True)
        return error

    def epoch(self) -> None:
        self.model.epoch(self.optimizer, self.batch_size)


def plain_names(model: Any, guide: Any) -> dict[str, Any]:
    """All parameters of the package's model and guide, tied ones once, by the dense model's names."""
    encoder, decoder = model.encoder, model.decoder
    named = {"table": encoder.weights[0], "inside": encoder.weights[1], "decoder_bias": decoder.biases[0]}
    named |= {"encoder_bias_0": encoder.biases[0], "encoder_bias_1": encoder.biases[1]}
    named |= {"word_bias": decoder.output_biases["logits"]}
    for name, layer in (("loc", encoder.loc), ("log_variance", encoder.log_variance), ("inner", decoder.inner)):
        named |= {f"{name}_weight": layer.weight, f"{name}_bias": layer.bias}
    rows = dict(zip("uv", (guide[0], guide[2]), strict=True))
    for name, part in rows.items():
        keys = {name: name, "loc": name, "scale": f"{name}_log_scale"}
        named |= {
            keys[key.removesuffix("_unconstrained")]: tensor for key, tensor in part.named_parameters(recurse=False)
        }
    return named


if __name__ == "__main__":
    as_command(main)
