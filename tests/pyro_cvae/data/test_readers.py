"""Contents from files and folders, keyed by item id: the same from each format, and what is refused."""

import logging
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pyro_cvae.data import readers
from pyro_cvae.data.frames import from_frames, load_tables
from pyro_cvae.data.readers import read_content, with_contents
from pyro_cvae.data.registry import load_dataset
from pyro_cvae.data.sources import Source, parse_all
from pyro_cvae.errors import InputError

PAIRS = {"user": ["eve", "bob", "eve"], "item": ["a", "b", "b"]}
ITEMS = {"item": ["a", "b", "c"], "text": ["comet", "sail", ""], "title": ["Sky", "The sea, the sea", ""]}


@pytest.fixture
def data():
    return from_frames(PAIRS, ITEMS)


@pytest.fixture
def numbered():
    return from_frames({"user": [1, 2], "item": [10, 7]}, {"item": [10, 7, -2], "text": ["comet", "sail", ""]})


def read(data, path, kind=None, **policy):
    return read_content(data, Source("x", kind, str(path)), **policy)


# --- what --contents says --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tags", ("tags", None, None)),
        ("a=b.npy", ("a", None, "b.npy")),
        ("a=images:b.npy", ("a", "images", "b.npy")),
        ("a=words:b:c.csv", ("a", "words", "b:c.csv")),
        ("a=./b:c.csv", ("a", None, "./b:c.csv")),
        ("a=x/y=z.csv", ("a", None, "x/y=z.csv")),
        ("a=C:\\b.csv", ("a", None, "C:\\b.csv")),
        ("abstract-1=tokens:", ("abstract-1", "tokens", None)),
    ],
)
def test_a_source_is_name_kind_and_path(text, expected):
    source = Source.parse(text)
    assert (source.name, source.kind, source.path) == expected


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["a=sound:b.npy"], "no kind 'sound'; use one of words, tokens, images, vectors"),
        (["a="], "the path is missing"),
        (["a=images:"], "images need a path"),
        (["text=b.csv"], "cannot be called 'text'"),
        (["=b.csv"], "cannot be called ''"),
        (["1a=b.csv"], "cannot be called '1a'"),
        (["a", "b", "a=c.csv"], "has a twice"),
    ],
)
def test_sources_that_say_nothing(texts, words):
    with pytest.raises(InputError, match=re.escape(words)):
        parse_all(texts)


# --- arrays ----------------------------------------------------------------------------------------------------------

ROWS = np.array([[1, 2], [0, 0], [3, 4]], np.float32)


def test_vectors_are_the_same_from_every_format(data, tmp_path):
    np.save(tmp_path / "v.npy", ROWS)
    np.savez(tmp_path / "v.npz", ids=np.array(["c", "a", "b"]), values=ROWS[[2, 0, 1]].astype(np.float64))
    frame = pd.DataFrame({"item": ["c", "a", "b"], "p": [3, 1, 0], "q": [4.0, 2.0, 0.0]})
    frame.to_csv(tmp_path / "v.csv", index=False)
    frame.to_parquet(tmp_path / "v.parquet")
    for name, kind in (("v.npy", None), ("v.npz", None), ("v.csv", "vectors"), ("v.parquet", "vectors")):
        got = read(data, tmp_path / name, kind)
        assert (got.kind, got.values.dtype) == ("vectors", np.float32)
        np.testing.assert_array_equal(got.values, ROWS)
        assert got.present.all()


def test_items_that_a_file_leaves_out_lack_the_content(data, tmp_path):
    np.savez(tmp_path / "v.npz", ids=np.array(["c", "a"]), values=ROWS[[2, 0]] + 1)
    (tmp_path / "v.csv").write_text("item,p,q\nc,4,5\na,2,3\n")
    for got in (read(data, tmp_path / "v.npz"), read(data, tmp_path / "v.csv", "vectors")):
        assert got.values.tolist() == [[2, 3], [0, 0], [4, 5]]
        assert got.present.tolist() == [True, False, True]


def test_columns_of_a_table_have_units_of_their_own_and_arrays_have_none(data, tmp_path):
    (tmp_path / "v.csv").write_text("item,price,constant\nc,4e6,5\na,2e6,5\n")
    got = read(data, tmp_path / "v.csv", "vectors")
    assert got.units.tolist() == [[3e6, 5], [1e6, 1]]
    assert got.centred().tolist() == [[-1, 0], [0, 0], [1, 0]]
    assert got.select([2]).units.tolist() == got.spread(np.arange(3)[::-1], 3).units.tolist() == got.units.tolist()
    np.save(tmp_path / "v.npy", ROWS)
    assert read(data, tmp_path / "v.npy").units is None


def test_blank_cells_are_the_mean_of_their_column_and_a_blank_row_is_none(data, tmp_path, caplog):
    (tmp_path / "v.csv").write_text("item,p,q\na,1,NA\nb,,\nc,3,8\n")
    got = read(data, tmp_path / "v.csv", "vectors")
    assert got.values.tolist() == [[1, 8], [0, 0], [3, 8]]
    assert got.present.tolist() == [True, False, True]
    assert "1 of 4 blank cells is read as the mean of the column" in caplog.text
    (tmp_path / "new.csv").write_text("item,p,q\nb,,7\n")
    new = read_content(data, Source("x", "vectors", str(tmp_path / "new.csv")), like=got)
    assert new.values.tolist() == [[0, 0], [2, 7], [0, 0]], "a new item's blank is the mean of those that are known"
    assert new.units.tolist() == got.units.tolist()


def test_arrays_of_three_or_four_dimensions_are_images(data, tmp_path):
    gray = np.arange(3 * 2 * 4).reshape(3, 2, 4).astype(np.uint8)
    for values in (gray, gray[:, None], np.stack([gray, gray], 1), gray / 255):
        np.save(tmp_path / "a.npy", values)
        got = read(data, tmp_path / "a.npy")
        assert got.kind == "images"
        np.testing.assert_array_equal(got.values, values.astype(got.values.dtype).reshape(3, -1, 2, 4))
    np.savez(tmp_path / "a.npz", ids=["b"], values=gray[:1])
    assert read(data, tmp_path / "a.npz").present.tolist() == [False, True, False]


def test_whole_ids_are_found_by_number_and_by_what_spells_them(numbered, tmp_path):
    np.savez(tmp_path / "n.npz", ids=np.array([7, 10]), values=ROWS[:2])
    np.savez(tmp_path / "t.npz", ids=np.array(["7", "10"]), values=ROWS[:2])
    (tmp_path / "v.csv").write_text("item,p,q\n7,1,2\n10,0,0\n")
    pd.DataFrame({"item": [7, 10], "p": [1, 0], "q": [2, 0]}).to_parquet(tmp_path / "v.parquet")
    for name in ("n.npz", "t.npz", "v.csv", "v.parquet"):
        got = read(numbered, tmp_path / name, "vectors")
        assert got.values.tolist() == [[0, 0], [1, 2], [0, 0]], name
        assert got.present.tolist() == [True, True, False]


def test_ids_of_text_that_look_like_numbers_stay_text(tmp_path):
    data = from_frames({"user": [1], "item": ["7"]}, {"item": ["7", "07", "x"], "text": ["comet", "", ""]})
    (tmp_path / "v.csv").write_text("item,p\n07,1\n7,2\n")
    assert read(data, tmp_path / "v.csv", "vectors").values.tolist() == [[2], [1], [0]]
    (tmp_path / "v.csv").write_text("item,p\n7,2\n")
    assert read(data, tmp_path / "v.csv", "vectors").values.tolist() == [[2], [0], [0]]


def save(name, values):
    def write(folder):
        path = folder / name
        if isinstance(values, dict):
            np.savez(path, **values)
        elif isinstance(values, bytes | str):
            path.write_bytes(values.encode() if isinstance(values, str) else values)
        else:
            np.save(path, values)
        return path

    return write


def cut(folder):
    path = save("cut.npy", np.ones((3, 2)))(folder)
    path.write_bytes(path.read_bytes()[:-1])
    return path


def cut_archive(folder):
    path = save("cut.npz", {"ids": ["a"], "values": ROWS[:1]})(folder)
    path.write_bytes(path.read_bytes()[:-40])
    return path


OBJECTS = np.array([[1, None]] * 3, object)


@pytest.mark.parametrize(
    ("make", "kind", "place", "words"),
    [
        (save("o.npy", OBJECTS), None, "o.npy: ", "holds values of type object, not numbers"),
        (save("t.npy", np.array(["a", "b", "c"])), None, "t.npy: ", "holds values of type <U1"),
        (cut, None, "cut.npy: ", "has 175 bytes instead of 176: it is damaged or cut short"),
        (save("j.npy", b"\x80\x04K\x01."), None, "j.npy: ", "is not a readable .npy file"),
        (save("e.npy", b""), None, "e.npy: ", "is not a readable .npy file"),
        (save("n.npy", [[1, np.nan]] * 3), None, "n.npy: ", "row 1 has a number that is not finite"),
        (save("r.npy", ROWS[:2]), None, "r.npy: ", "has 2 rows, the data set 3 items"),
        (save("d.npy", np.ones(3)), None, "d.npy: ", "images have shape (3,)"),
        (save("i.npy", np.ones((3, 4, 4)) * 2), None, "i.npy: ", "row 1 has a pixel below 0 or above 1"),
        (save("i.npy", np.ones((3, 4, 4, 4, 4))), None, "i.npy: ", "images have shape"),
        (save("v.npy", ROWS), "words", "v.npy: ", "cannot be read as words; it can hold vectors or images"),
        (save("v.npy", ROWS), "images", "v.npy: ", "images have shape (3, 2)"),
        (save("v.npz", {"values": ROWS}), None, "v.npz: ", "does not hold ids and values"),
        (save("v.npz", {"ids": ["a", "b"], "values": ROWS}), None, "v.npz: ", "has (2,) ids for (3, 2) values"),
        (save("v.npz", {"ids": [1.0], "values": ROWS[:1]}), None, "v.npz: ", "ids of type float64"),
        (save("v.npz", {"ids": ["a", "b", "a"], "values": ROWS}), None, "v.npz: ", "ids[2]: item 'a' is there more"),
        (save("v.npz", {"ids": ["a", "z"], "values": ROWS[:2]}), None, "v.npz: ", "ids[1]: item 'z' is not in"),
        (save("v.npz", {"ids": [0], "values": ROWS[:1]}), None, "v.npz: ", "ids[0]: item 0 is not in"),
        (save("o.npz", {"ids": np.array(["a", None], object), "values": ROWS[:2]}), None, "o.npz: ", "objects"),
        (save("o.npz", {"ids": np.array(["a"]), "values": OBJECTS[:1]}), None, "o.npz: ", "objects"),
        (cut_archive, None, "cut.npz: ", "is damaged"),
        (save("x.npz", "none"), None, "x.npz: ", "is damaged"),
        (save("v.csv", "item,p\na,1\nb,x\n"), "vectors", "v.csv:3: ", "the p 'x' cannot be used"),
        (save("v.csv", "item,p,q\na,1,\nb,2,nan\n"), "vectors", "v.csv: ", "the column q has no number"),
        (save("v.csv", "item,p\na,nan\n"), "vectors", "v.csv: ", "the column p has no number"),
        (save("v.csv", "item,p\na,inf\n"), "vectors", "v.csv:2: ", "the p 'inf' cannot be used"),
        (save("v.csv", "item,p\na,1e40\n"), "vectors", "v.csv: ", "row 1 has a number that is not finite"),
        (save("v.csv", "item\na\n"), "vectors", "v.csv: ", "has no column of numbers"),
        (save("v.csv", "item,text\na,x\nz,y\n"), None, "v.csv:3: ", "item 'z' is not in the data set"),
        (save("v.csv", "item,text\na,x\na,y\n"), None, "v.csv:3: ", "item 'a' is there more than once"),
        (save("v.csv", "item,text\nz,x\n"), "tokens", "v.csv:2: ", "item 'z' is not in the data set"),
        (save("v.csv", "item,text\na,the\n"), None, "v.csv: ", "no words but stop words"),
        (save("v.csv", "item,text\na,?\n"), "tokens", "v.csv: ", "the texts have no words"),
        (save("v.csv", "item,p\na,1\n"), None, "v.csv: ", "has no column text"),
        (save("v.csv", "item,text\na,x\n"), "images", "v.csv: ", "this is not a folder"),
        (save("v.xls", "a"), None, "v.xls: ", "nor .parquet"),
        (lambda folder: folder / "no.npy", None, "no.npy: ", "no such file"),
        (lambda folder: folder / "no.npz", None, "no.npz: ", "no such file"),
        (lambda folder: folder / "no", "images", "no: ", "no such folder"),
        (lambda folder: folder, None, "", "has no PNG or JPEG file"),
        (lambda folder: folder, "vectors", "", "cannot be read as vectors; it can hold images"),
    ],
)
def test_files_that_cannot_be_used(make, kind, place, words, data, tmp_path):
    path = make(tmp_path)
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        read(data, path, kind)
    assert f"{tmp_path}/{place}" in str(caught.value) if place else str(tmp_path) in str(caught.value)
    assert caught.value.remedy and "\n" not in str(caught.value)


def test_unknown_items_are_dropped_where_that_is_asked_and_counted(data, tmp_path, caplog):
    np.savez(tmp_path / "v.npz", ids=np.array(["z", "c", "a"]), values=ROWS)
    (tmp_path / "v.csv").write_text("item,text\nz,boat\nb,boat ship\n")
    with caplog.at_level(logging.WARNING):
        vectors = read(data, tmp_path / "v.npz", unknown="drop")
        words = read(data, tmp_path / "v.csv", unknown="drop")
    assert vectors.values.tolist() == [[3, 4], [0, 0], [0, 0]]
    assert vectors.present.tolist() == [True, False, True]
    assert words.counts.toarray().tolist() == [[0, 0], [1, 1], [0, 0]]
    assert caplog.text.count("1 content of unknown items dropped") == 2
    np.savez(tmp_path / "v.npz", ids=np.array(["z"]), values=ROWS[:1])
    with pytest.raises(InputError, match="holds no item of the data set"):
        read(data, tmp_path / "v.npz", unknown="drop")
    with pytest.raises(InputError, match="use error or drop"):
        with_contents(data, [], unknown="guess")


# --- texts -----------------------------------------------------------------------------------------------------------


def test_texts_of_a_table_are_words_or_tokens_and_blank_ones_none(data, tmp_path):
    (tmp_path / "t.csv").write_text("item,text\nc,The boat and the ship\nb,\n")
    words, tokens = read(data, tmp_path / "t.csv"), read(data, tmp_path / "t.csv", "tokens")
    assert (words.vocabulary, words.counts.toarray().tolist()) == (("boat", "ship"), [[0, 0], [0, 0], [1, 1]])
    assert [tokens.vocabulary[t] for t in tokens.tokens] == ["the", "boat", "and", "the", "ship"]
    assert words.present.tolist() == tokens.present.tolist() == [False, False, True]


def test_titles_and_columns_are_contents_that_the_data_have(tmp_path):
    pd.DataFrame(PAIRS).to_csv(tmp_path / "p.csv", index=False)
    pd.DataFrame(ITEMS | {"genre": ["war war", "", "love"]}).to_csv(tmp_path / "i.csv", index=False)
    asked = ["genre", "titles", "title-tokens", "title=tokens:"]
    data = load_dataset(tmp_path / "p.csv", tmp_path / "i.csv", asked)
    assert list(data.others) == ["genre", "title", "titles", "title-tokens"]
    genre, titles, tokens = data.others["genre"], data.others["titles"], data.others["title-tokens"]
    assert genre.counts.toarray().tolist() == [[0, 2], [0, 0], [1, 0]]
    assert genre.present.tolist() == [True, False, True]
    assert titles.vocabulary == ("sea", "sky") and titles.present.tolist() == [True, True, False]
    assert [tokens.vocabulary[t] for t in tokens.tokens] == ["sky", "the", "sea", "the", "sea"]
    assert data.others["title"].tokens.tolist() == tokens.tokens.tolist()
    assert data.content.vocabulary == load_tables(tmp_path / "p.csv", tmp_path / "i.csv").content.vocabulary
    data.save(tmp_path / "saved")
    assert load_dataset(tmp_path / "saved", contents=["genre"]).fingerprint() == data.fingerprint()
    with pytest.raises(InputError, match="p has no content of that name; it offers titles, title-tokens; a file is"):
        load_dataset(tmp_path / "p.csv", tmp_path / "i.csv", ["tags"])
    with pytest.raises(InputError, match="has a content genre already"):
        load_dataset(tmp_path / "saved", contents=["genre=i.csv"])


def test_with_further_contents_the_items_need_no_text(tmp_path, caplog):
    pd.DataFrame(PAIRS).to_csv(tmp_path / "p.csv", index=False)
    (tmp_path / "i.csv").write_text("item,genre\na,war\nb,love\nc,\n")
    data = load_dataset(tmp_path / "p.csv", tmp_path / "i.csv", ["genre"])
    assert (data.n_features, list(data.contents)) == (0, ["genre"])
    caplog.set_level("INFO")
    assert load_dataset(tmp_path / "p.csv", tmp_path / "i.csv").contents == {}
    assert "has no column text: the items have no content" in caplog.text
    (tmp_path / "blank.csv").write_text("item,text,genre\na,,war\nb, ,love\nc,<br>,\n")
    data = load_dataset(tmp_path / "p.csv", tmp_path / "blank.csv", ["genre"])
    assert (data.n_features, list(data.contents)) == (0, ["genre"])
    assert "the column text is blank in all rows" in caplog.text


def test_columns_of_an_atomic_file(tmp_path):
    (tmp_path / "d.inter").write_text("user_id:token\titem_id:token\n1\t10\n2\t7\n")
    (tmp_path / "d.item").write_text("item_id:token\tname:token_seq\tgenre:token\n10\tcomet sky\twar\n7\tsail\t\n")
    data = load_dataset(tmp_path, contents=["genre", "name=tokens:"])
    assert data.others["genre"].present.tolist() == [True, False]
    assert data.others["name"].vocabulary[1:] == ("comet", "sail", "sky")
    assert data.content.vocabulary == ("comet", "sail", "sky")
    (tmp_path / "d.item").write_text("item_id:token\tgenre:token\n10\twar\n7\t\n")
    assert load_dataset(tmp_path, contents=["genre"]).n_features == 0


# --- pictures --------------------------------------------------------------------------------------------------------

PIXELS = np.arange(3 * 2 * 3).reshape(2, 3, 3).astype(np.uint8) * 14  # (height, width, channels)


def picture(path, mode, size=None):
    """A picture in this mode, and its pixels (channels, height, width) as Pillow's own `getpixel` has them."""
    image = Image.fromarray(PIXELS).convert(mode)
    image = image.resize(size) if size else image
    image.save(path)
    plain = Image.open(path).convert({"1": "L", "P": "RGB"}.get(mode, mode))
    pixels = [[plain.getpixel((x, y)) for x in range(plain.width)] for y in range(plain.height)]
    plain.close()
    return np.array(pixels, np.uint8).reshape(plain.height, plain.width, -1).transpose(2, 0, 1)


@pytest.mark.parametrize(
    ("mode", "ending"),
    [*((mode, ".png") for mode in ("L", "RGB", "RGBA", "LA", "P", "1")), ("L", ".jpg"), ("RGB", ".JPEG")],
)
def test_a_folder_of_pictures_named_by_item(mode, ending, data, tmp_path, caplog):
    expected = [picture(tmp_path / f"{item}{ending}", mode) for item in "ca"]
    (tmp_path / "README.txt").write_text("mine")
    with caplog.at_level(logging.WARNING):
        got = read(data, tmp_path)
    assert (got.kind, got.values.dtype, got.present.tolist()) == ("images", np.uint8, [True, False, True])
    np.testing.assert_array_equal(got.values[[2, 0]], expected)
    assert not got.values[1].any()
    assert "files left out: README.txt" in caplog.text


def test_whole_ids_as_names_of_files(numbered, tmp_path):
    for item in (10, -2):
        picture(tmp_path / f"{item}.png", "L")
    assert read(numbered, tmp_path).present.tolist() == [True, False, True]


def other_size(folder):
    picture(folder / "a.png", "L")
    picture(folder / "b.png", "L", (4, 2))


def other_mode(folder):
    picture(folder / "a.png", "L")
    picture(folder / "b.png", "RGB")


def corrupt(folder):
    picture(folder / "a.png", "L", (64, 64))
    raw = (folder / "a.png").read_bytes()
    (folder / "a.png").write_bytes(raw[: len(raw) // 2])


def flipped(folder):
    picture(folder / "a.png", "RGB", (64, 64))
    raw = bytearray((folder / "a.png").read_bytes())
    raw[60:90] = bytes(30)
    (folder / "a.png").write_bytes(raw)


@pytest.mark.parametrize(
    ("make", "place", "words"),
    [
        (other_size, "b.png: ", "has 4 x 2 pixels of 1 channel, but a.png has 3 x 2 pixels of 1 channel"),
        (other_mode, "b.png: ", "has 3 x 2 pixels of 3 channels, but a.png has"),
        (corrupt, "a.png: ", "is no readable PNG or JPEG file"),
        (flipped, "a.png: ", "is no readable PNG or JPEG file"),
        (lambda f: (f / "a.png").write_bytes(b""), "a.png: ", "is no readable PNG or JPEG file"),
        (lambda f: Image.fromarray(PIXELS).save(f / "a.png", "GIF"), "a.png: ", "is no readable PNG or JPEG file"),
        (lambda f: Image.fromarray(PIXELS[..., 0].astype(np.uint16)).save(f / "a.png"), "a.png: ", "is of mode I;16"),
        (lambda f: Image.fromarray(PIXELS).convert("CMYK").save(f / "a.jpg"), "a.jpg: ", "is of mode CMYK"),
        (lambda f: picture(f / "z.png", "L"), "z.png: ", "item 'z' is not in the data set"),
        (lambda f: [picture(f / "a.png", "L"), picture(f / "a.jpg", "L")], "a.png: ", "item 'a' is there more than"),
    ],
)
def test_pictures_that_cannot_be_used(make, place, words, data, tmp_path):
    make(tmp_path)
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        read(data, tmp_path)
    assert f"{tmp_path}/{place}" in str(caught.value) and "\n" not in str(caught.value)


def test_pictures_that_would_not_fit_into_memory(data, tmp_path, monkeypatch):
    picture(tmp_path / "a.png", "L")
    monkeypatch.setattr(readers, "_LARGEST_FOLDER", 17)
    with pytest.raises(InputError, match="for 3 items take"):
        read(data, tmp_path)
    monkeypatch.setattr(readers, "_LARGEST_FOLDER", 18)
    assert read(data, tmp_path).values.nbytes == 18
