"""Draw docs/model.png: ``python -m benchmarks.draw_model`` (needs the extra `draw` and graphviz's program dot)."""

from pathlib import Path

import torch

from benchmarks.study.arguments import as_command
from inference.options import ModelOptions
from models.build import make_model
from models.contents.multinomial import Multinomial
from models.drawing import draw
from models.observations import Observations, RatingColumns, SparseRows


def main() -> None:
    """A model of two items and three users is enough: the picture has one plate for each."""
    rows = SparseRows.from_dense(torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]]))
    users, ones = torch.tensor([0, 2]), torch.ones(2)
    columns = RatingColumns(torch.tensor([0, 1, 2]), users, ones, ones, torch.tensor([True, True]), 3)
    model = make_model(3, 2, 3, Multinomial(), ModelOptions(factors=2, hidden=(2,)))
    path = Path(__file__).parent.parent / "docs" / "model.png"
    draw(model, Observations(rows, rows, columns).batch(torch.arange(2)), str(path))
    print(path)


if __name__ == "__main__":
    as_command(main)
