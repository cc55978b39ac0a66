"""Sentence vectors by a model on the disk: a small one, made here, of the real library; and models that are refused."""

import json
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

import inference
from pyro_cvae.data.embedding import embed, embedded, model_folder, texts_of_items
from pyro_cvae.data.frames import from_frames
from pyro_cvae.data.readers import read_new_items, with_contents
from pyro_cvae.data.sources import Source
from pyro_cvae.errors import InputError, MachineError

WORDS = ["comet", "sail", "mast", "star", "the", "sea", "sky", "at", "night"]
PAIRS = {"user": ["eve", "bob", "eve"], "item": ["a", "b", "b"]}
ITEMS = {
    "item": ["a", "b", "c"],
    "text": ["comet star star", "sail mast", ""],
    "title": ["The sky", "Sail the sea", ""],
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A sentence-transformers model with one small layer at random weights, as the library saves it."""
    pytest.importorskip("sentence_transformers")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("model")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(vocabulary), **sizes)).save_pretrained(folder / "bert")
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder / "bert")
    with warnings.catch_warnings(action="ignore"):
        parts = Transformer(str(folder / "bert")), Pooling(16)
        SentenceTransformer(modules=list(parts), device="cpu").save(str(folder / "whole"))
    return folder / "whole"


@pytest.fixture
def data():
    return from_frames(PAIRS, ITEMS)


def test_texts_become_unit_vectors_alike_for_alike_texts_and_blank_ones_have_none(model):
    found = embed(["comet star", None, "comet star", " ", "sail mast"], str(model))
    assert found.values.shape == (5, 16) and found.values.dtype == np.float32
    assert found.present.tolist() == [True, False, True, False, True]
    np.testing.assert_allclose(np.linalg.norm(found.values[[0, 2, 4]], axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(found.values[0], found.values[2], atol=1e-6)
    assert np.abs(found.values[0] - found.values[4]).max() > 1e-3
    alone = embed(["sail mast"], str(model))
    np.testing.assert_allclose(alone.values[0], found.values[4], atol=1e-5)


def test_titles_are_embedded_and_without_titles_the_most_telling_words(data, model):
    assert texts_of_items(data) == ["The sky", "Sail the sea", None]
    untitled = replace(data, titles=None)
    assert [set((text or "").split()) for text in texts_of_items(untitled)[:2]] == [
        {"comet", "star", "sky"},
        {"sail", "mast", "sea"},
    ]
    assert texts_of_items(untitled)[0].split()[0] == "star", "the most telling first"
    assert texts_of_items(untitled)[2] is None
    np.testing.assert_array_equal(embedded(data, str(model)).values, embed(texts_of_items(data), str(model)).values)


def test_a_fit_of_them_takes_new_items(data, model, tmp_path):
    source = Source.parse(f"sentences=embed:{model}")
    known = with_contents(data, [source])
    assert known.others["sentences"].kind == "vectors"
    options = {"content": "sentences", "content_likelihood": "normal", "factors": 2, "hidden": (4,), "split": "none"}
    fit = inference.fit(known, **options, pretrain_epochs=1, epochs=1, out=tmp_path / "run")
    (tmp_path / "new.csv").write_text("item,text,title\nd,comet,The sky\n")
    new = read_new_items(tmp_path / "new.csv", [source], known)
    np.testing.assert_allclose(new.others["sentences"].values[0], known.others["sentences"].values[0], atol=1e-6)
    again = inference.load(tmp_path / "run")
    assert torch.equal(again.encode({"sentences": new.others["sentences"]})[0].round(decimals=4),
                       fit.posterior.z_loc[:1].round(decimals=4))  # fmt: skip


def test_the_name_of_an_installed_package_is_found_without_importing_it(model, tmp_path, monkeypatch):
    package = tmp_path / "holds_a_model"
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "deep" / "modules.json").write_text((model / "modules.json").read_text())
    monkeypatch.syspath_prepend(tmp_path)
    assert model_folder("holds-a-model") == package / "deep"
    assert "holds_a_model" not in sys.modules
    (package / "deep" / "modules.json").unlink()
    with pytest.raises(InputError, match="the package holds-a-model holds no model"):
        model_folder("holds-a-model")


@pytest.mark.parametrize("name", ["no-such-model", "org/model", "../elsewhere", ""])
def test_a_model_that_is_not_there_is_not_downloaded(name):
    with pytest.raises(InputError, match="there is no model"):
        model_folder(name or "nothing here")


PARTS = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ("[", "modules.json: is missing or damaged"),
        (json.dumps({"type": 1}), "modules.json: is missing or damaged"),
        (json.dumps([PARTS[0] | {"type": "my_module.Evil"}]), "could run any code; use a model made of the library's"),
        (json.dumps([PARTS[0] | {"type": "sentence_transformersx.Evil"}]), "could run any code"),
        (json.dumps(PARTS), "holds no model.safetensors; save the model again; nothing is unpickled"),
    ],
)
def test_models_that_would_run_code_or_are_damaged(parts, words, tmp_path):
    (tmp_path / "modules.json").write_text(parts)
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(InputError) as found:
        embed(["comet"], str(tmp_path))
    assert words in str(found.value) and found.value.exit_code == 2


def test_a_later_part_whose_weights_would_be_unpickled_is_refused(model, tmp_path):
    import shutil

    whole = shutil.copytree(model, tmp_path / "whole")
    (whole / "2_Dense").mkdir()
    (whole / "2_Dense" / "pytorch_model.bin").write_bytes(b"anything")
    parts = json.loads((whole / "modules.json").read_text())
    dense = {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}
    (whole / "modules.json").write_text(json.dumps([*parts, dense]))
    with pytest.raises(InputError, match=r"2_Dense: holds no model\.safetensors"):
        embed(["comet"], str(whole))


def test_a_damaged_model_and_a_missing_library_are_one_line(model, tmp_path, monkeypatch):
    import shutil

    broken = shutil.copytree(model, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="is no model that can be read") as found:
        embed(["comet"], str(broken))
    assert "\n" not in str(found.value)
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MachineError, match="pip install sentence-transformers"):
        embed(["comet"], str(model))


def test_data_without_titles_or_words_and_texts_that_are_all_blank(data, model):
    numbers = from_frames(PAIRS, {"item": ["a", "b", "c"]})
    with pytest.raises(InputError, match="neither titles nor words"):
        texts_of_items(numbers)
    with pytest.raises(InputError, match="no item has a text to embed"):
        embed([None, " "], str(model))
