"""The paper's study as one command: ``python -m analysis.paper fig4|fig5|fig6|fig7|table1|all``.

It fits the CVAE, the paper's baselines and simpler rivals on several random splits, measures recall by both protocols,
draws the paper's figures anew, and holds each sentence of the paper about results to what was measured.

- fig4 and fig5: all methods at P = 1 and at P = 10 training items a user.
- fig6: the CVAE over lambda_r, trained jointly, beside networks that are held after the content.
- fig7: the CVAE over the number of factors K.
- table1: two users, chosen by a rule, and their ten best items of the CVAE and of CDL.

Every finished fit is a line of ``results.jsonl`` in ``--out``. A command that was stopped goes on where it was, and a
fit of other settings or data is another fit. Verdicts count every fit that is there.
"""

from __future__ import annotations

from collections.abc import Sequence

from analysis.replication.methods import check_methods
from analysis.replication.options import PaperOptions, place_of
from inference.commands import parse
from inference.printing import show
from pyro_cvae.data.names import check_there
from pyro_cvae.errors import MachineError, run_command


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    (options,) = parse(
        "python -m analysis.paper",
        "The figures and the table of the paper, computed again on random splits, and what is left of its sentences.",
        (PaperOptions,),
        argv,
        positionals=("parts",),
        examples=(
            ("python -m analysis.paper all --jobs 2", "everything, two fits at once; goes on where it was stopped"),
            (
                "python -m analysis.paper fig4 --data simulated --splits 2 --methods best tfidf --out try",
                "a quick look",
            ),
        ),
    )
    check_methods(options.chosen, options.methods)
    for data in options.data:
        check_there(place_of(data))
    from analysis.replication.study import study

    made = study(options)
    for part in made.shown:
        show(part)
    show("\nwritten: " + options.out)
    for path in made.files:
        show("  " + path.name)
    if made.failed:
        raise MachineError(f"{len(made.failed)} fit(s) failed: {made.failed[0]}", "call it again to go on")


if __name__ == "__main__":
    raise SystemExit(run_command(main))
