"""The benchmark of the variational modes against draws: it runs, and compares fits of the same networks only."""

import re

import pytest

import inference
from benchmarks import reference


@pytest.mark.slow
def test_every_mode_is_set_against_the_draws(capsys):
    reference.main(
        ["--draws", "20", "--thin", "1", "--warmup", "5", "--pretrain-epochs", "2", "--epochs", "2", "--threads", "1"]
    )
    printed = capsys.readouterr().out
    assert "score: rhat" in printed
    for name, changes in reference.FITS.items():
        row = re.search(rf"{name} +│([^\n]*)", printed)
        numbers = [] if row is None else [float(part) for part in re.findall(r"\d+\.\d+", row[1])]
        assert len(numbers) == (2 if changes.get("mode") == "map" else 6) and numbers[1] >= numbers[0] > 0


def test_other_networks_are_refused(monkeypatch):
    fit = inference.fit

    def other(dataset, method, pretrain_epochs, **options):
        own = {} if method == "mcmc" else {"seed": 1}
        return fit(dataset, method=method, pretrain_epochs=pretrain_epochs, **options | own)

    monkeypatch.setattr(inference, "fit", other, raising=False)
    with pytest.raises(SystemExit, match="coordinate, points: the networks are not those of the reference"):
        reference.main(
            [
                "--draws",
                "4",
                "--thin",
                "1",
                "--warmup",
                "1",
                "--pretrain-epochs",
                "1",
                "--epochs",
                "1",
                "--threads",
                "1",
            ]
        )
