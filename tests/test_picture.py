"""The picture of README is drawn from a run, and the one that lies there is small."""

import numpy as np

import inference
from docs.making import picture
from inference.recommending import recommend
from pyro_cvae.data.frames import from_frames
from tests.test_likelihoods_page import ROOT


def test_the_picture_shows_the_list_and_what_was_held_out(tmp_path):
    rng = np.random.default_rng(0)
    pairs = [(f"user-{u:04d}", int(j)) for u in range(8) for j in rng.choice(30, 12, replace=False)]
    texts = [" ".join(rng.choice(["sail", "mast", "oven", "proof"], 6)) for _ in range(30)]
    dataset = from_frames(
        {"user": [user for user, _ in pairs], "item": [item for _, item in pairs]},
        {"item": list(range(30)), "text": texts, "title": texts},
    )
    options = {"factors": 3, "hidden": (6,), "train_per_user": 5, "pretrain_epochs": 1, "epochs": 2, "threads": 1}
    fit = inference.fit(dataset, method="coordinate", **options)
    table = picture.listed(fit)
    own = recommend(fit, [picture.USER], picture.TOP, keep_test=True, interval=picture.LEVEL)
    assert table["item"].tolist() == own["item"].tolist() and table["low"].tolist() == own["low"].tolist()
    mine = {item for user, item in pairs if user == picture.USER}  # less the training pairs, which are not listed
    assert table["chosen"].tolist() == [item in mine for item in table["item"]] and table["chosen"].any()
    picture.draw(table, tmp_path / "list.png")
    assert (tmp_path / "list.png").read_bytes().startswith(b"\x89PNG")


def test_the_picture_of_readme_is_small():
    assert "](docs/list.png)" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert (ROOT / "docs" / "list.png").stat().st_size < 200_000
