"""Tables as people have them: what can be mended is read alike and told, what cannot is one line with the remedy."""

import bz2
import datetime as dt
import gzip
import io
import logging
import lzma
import random
import sys
import textwrap
import zipfile
from dataclasses import replace

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.delimited import read_ids
from pyro_cvae.data.frames import from_frames, load_tables
from pyro_cvae.data.reading import Reading
from pyro_cvae.data.registry import load_dataset
from pyro_cvae.data.sources import Source
from pyro_cvae.data.splits import by_time
from pyro_cvae.errors import InputError

PAIRS = "user,item,time\nana,1,10\nbo,2,20\nana,2,30\n"
ITEMS = "item,text\n1,comet nebula café\n2,sail mast\n"


@pytest.fixture
def read(tmp_path):
    """The data set of two tables, each given as text or bytes, under these names."""

    def of(pairs=PAIRS, items=ITEMS, names=("pairs.csv", "items.csv"), **how):
        for name, content in zip(names, (pairs, items), strict=True):
            (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return load_dataset(*(tmp_path / name for name in names), **how)

    return of


@pytest.fixture
def told(caplog):
    caplog.set_level(logging.INFO)
    return lambda: [record.getMessage() for record in caplog.records]


# --- B8: separators, compression, encodings, names of columns ---------------------------------------------------------


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_other_separators_are_told_by_the_header(read, mark):
    assert read(PAIRS.replace(",", mark), ITEMS).fingerprint() == read().fingerprint()
    other = f'item{mark}text\n1{mark}"comet, nebula{mark} café"\n2{mark}sail mast\n'
    assert read(PAIRS, other).content.vocabulary == read().content.vocabulary
    assert read(PAIRS, other).item_ids.tolist() == [1, 2]


@pytest.mark.parametrize(("word", "mark"), [("tab", "\t"), ("::", "::"), (" ", " "), ("semicolon", ";")])
def test_a_separator_that_is_named(read, tmp_path, word, mark):
    pairs = PAIRS.replace(",", mark)
    items = f'item{mark}text\n1{mark}"comet{mark}nebula"\n2{mark}"sail"\n'
    data = read(pairs, items, reading=Reading(separator=word))
    assert data.interactions.times.tolist() == [10, 30, 20]
    assert data.content.vocabulary == ("comet", "nebula", "sail")


def zst(raw):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(raw)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize(
    ("ending", "pack"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress), ("ZST", zst)]
)
def test_compressed_tables(read, ending, pack):
    names = (f"pairs.csv.{ending}", f"items.CSV.{ending}")
    data = read(pack(PAIRS.encode()), pack(ITEMS.encode()), names)
    assert (data.fingerprint(), data.name) == (read().fingerprint(), "pairs")
    for damaged in (b"no archive", pack(PAIRS.encode())[:-5], b""):
        with pytest.raises(InputError, match=r"not a readable|is empty"):
            read(damaged, ITEMS.encode(), (names[0], "items.csv"))


def test_a_file_that_swells_out_of_proportion_is_refused(read):
    bomb = gzip.compress(bytes(2**29), 9)
    with pytest.raises(InputError, match=r"pairs\.csv\.gz: holds more than 200 times its own size"):
        read(bomb, ITEMS, ("pairs.csv.gz", "items.csv"))


@pytest.mark.parametrize("name", ["pairs.CSV", "pairs.tsv", "Pairs.TXT"])
def test_names_of_files(read, name):
    assert read(names=(name, "items.csv")).fingerprint() == read().fingerprint()


def test_a_parquet_file_in_capitals(tmp_path, read):
    pd.DataFrame({"user": ["ana"], "item": [1]}).to_parquet(tmp_path / "P.PARQUET")
    pd.DataFrame({"item": [1], "text": ["sail"]}).to_parquet(tmp_path / "I.PQ")
    assert len(load_dataset(tmp_path / "P.PARQUET", tmp_path / "I.PQ").interactions) == 1


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_encodings_that_show_themselves(read, encoding):
    assert read(PAIRS.encode(encoding), ITEMS.encode(encoding)).fingerprint() == read().fingerprint()


@pytest.mark.parametrize(
    ("encoding", "word"), [("latin-1", "café"), ("cp1252", "caf\u0153"), ("shift_jis", "日本"), ("koi8-r", "море")]
)
def test_encodings_that_are_named(read, encoding, word):
    items = ITEMS.replace("café", word).encode(encoding)
    with pytest.raises(InputError, match=r"items\.csv:2: is not valid UTF-8; name its encoding, for instance --enc"):
        read(PAIRS, items)
    data = read(PAIRS.encode(encoding), items, reading=Reading(encoding=encoding))
    assert word in data.content.vocabulary
    with pytest.raises(InputError, match="is not valid ascii"):
        read(PAIRS, items, reading=Reading(encoding="ascii"))


@pytest.mark.parametrize("start", ["", "sep=;\n", "\ufeff", "\n"])
def test_an_encoding_and_a_column_are_told_at_once(read, start):
    """As Book-Crossing comes: names of its own, and latin-1."""
    pairs = f'{start}"User-ID";"ISBN";"Stra\xdfe"\n1;2;\xdf\n'
    pairs = pairs.encode("utf-8" if start == "\ufeff" else "latin-1") + "3;1;\xdf\n".encode("latin-1") * 9
    said = "is not valid UTF-8, and has no column item (its columns: User-ID, ISBN, Stra\ufffd"
    with pytest.raises(InputError) as told:
        read(pairs)
    assert told.value.problem.startswith(said) and "\n" not in str(told.value)
    assert told.value.remedy.startswith("name its encoding, for instance --encoding latin-1")
    assert told.value.remedy.endswith(", and the column, --columns item=COLUMN")
    with pytest.raises(InputError, match="is not valid UTF-8; name its encoding"):
        read(pairs, reading=Reading(columns={"item": "ISBN"}))


def other_files():
    """The pairs as programs write them that write no text, with what is said of each."""
    table, files = pa.table({"user": ["ana", "bo"], "item": ["1", "2"]}), {}
    for name, write in (("Parquet", pq.write_table), ("Feather", pa.feather.write_feather)):
        sink = pa.BufferOutputStream()
        write(table, sink)
        files[f"is a {name} file and no text"] = sink.getvalue().to_pybytes()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("pairs.csv", PAIRS)
    files["is a zip archive or a workbook and no text"] = archive.getvalue()
    for name, pack in (("gzip", gzip.compress), ("bzip2", bz2.compress), ("xz", lzma.compress)):
        files[f"is packed by {name} and no text"] = pack(PAIRS.encode())
    return files


@pytest.mark.parametrize("problem", other_files())
def test_a_file_that_is_no_text_is_known_by_how_it_begins(read, problem):
    with pytest.raises(InputError, match=problem) as told:
        read(other_files()[problem])
    assert told.value.path.name == "pairs.csv" and len(str(told.value)) < 300


def test_a_text_may_begin_like_another_file(read):
    assert read("PAR1,user,item\n0,ana,1\n0,bo,2\n").n_users == 2


def test_a_few_wrong_bytes_among_many_right_ones_are_replaced_and_counted(read, told):
    items = ("item,text\n1," + "naïve café über " * 20 + "\n2,sail m").encode() + b"\xff" + b"ast\n"
    assert read(PAIRS, items).item_ids.tolist() == [1, 2]
    assert any("items.csv: 1 undecodable character was replaced (the first: line 3)" in line for line in told())


@pytest.mark.parametrize(
    "header", ["User,ITEM,Time", " user , item , time ", "userId,Item_ID,Timestamp", "USER ID,item-id,time"]
)
def test_names_in_capitals_or_with_blanks(read, header):
    data = read(PAIRS.replace("user,item,time", header), ITEMS.replace("item,text", "Item, TEXT"))
    assert data.fingerprint() == read().fingerprint()


def test_all_columns_that_a_table_lacks_are_told_at_once():
    wanted = "has no column user and no column item .its columns: who, what.; name columns user and item, or give "
    with pytest.raises(InputError, match=wanted + "--columns user=COLUMN item=COLUMN"):
        from_frames({"who": [1], "what": [2]})


def test_a_table_without_a_header_is_told_where_names_stand(read):
    with pytest.raises(InputError, match="name columns user and item in the first line, or give --columns user=COL"):
        read("ana,1,2024-05-01\n")
    with pytest.raises(InputError, match="write a first line with the names of the columns"):
        read("7,1,20\n")


def test_names_by_option(read):
    reading = Reading({"user": "who", "item": "movieId", "time": "when", "text": "overview", "title": "name"})
    pairs, items = PAIRS.replace("user,item,time", "who,movieId,when"), ITEMS.replace("item,text", "movieId,overview")
    there = Reading({name: column for name, column in reading.columns.items() if name != "title"})
    assert read(pairs, items, reading=there).fingerprint() == read().fingerprint()
    with pytest.raises(InputError, match=r"has no column name, which --columns calls title \(its columns: movieId, o"):
        read(pairs, items, reading=reading)
    with pytest.raises(InputError, match="--columns names 'usr'"):
        Reading({"usr": "x"})
    frames = pd.DataFrame({"who": ["ana"], "movieId": [1]}), pl.DataFrame({"movieId": [1], "plot": ["comet"]})
    data = from_frames(*frames, reading=Reading({"user": "who", "item": "movieId", "text": "plot"}))
    assert (data.user_ids.tolist(), data.content.vocabulary) == (["ana"], ("comet",))


def test_an_item_may_be_called_otherwise_in_one_of_the_tables(read, told):
    theirs, named = ITEMS.replace("item,text", "Id,text"), ITEMS.replace("item,text", "sku,text")
    assert read(items=theirs).fingerprint() == read().fingerprint()
    assert any("items.csv: the column Id is read as item" in line for line in told())
    numbered = "item,id,text\n1,7,comet nebula café\n2,8,sail mast\n"
    assert read(items=numbered).fingerprint() == read().fingerprint()
    reading = Reading({"item": "sku"})
    for pairs, items in ((PAIRS, named), (PAIRS.replace("item", "sku"), ITEMS), (PAIRS.replace("item", "sku"), named)):
        assert read(pairs, items, reading=reading).fingerprint() == read().fingerprint()
    for items in (ITEMS, theirs):
        with pytest.raises(InputError, match=r"pairs\.csv: has no column sku, which --columns calls item"):
            read(PAIRS, items, reading=reading)
    with pytest.raises(InputError, match=r"pairs\.csv: has no column item"):
        read(PAIRS.replace("item", "id"), ITEMS)


def test_the_line_that_names_the_separator_for_excel(read):
    assert read("sep=;\r\n" + PAIRS.replace(",", ";")).fingerprint() == read().fingerprint()
    with pytest.raises(InputError, match=r"pairs\.csv:3: the weight '-1' cannot be used"):
        read("sep=|\nuser|item|weight\nana|1|-1\n")


def test_an_exact_name_wins_over_one_in_capitals(read):
    data = read("user,User,item\nana,x,1\nbo,y,2\n")
    assert data.user_ids.tolist() == ["ana", "bo"]
    with pytest.raises(InputError, match=r"both a column User and a column USER; .* --columns user=COLUMN"):
        read("User,USER,item\nana,x,1\n")


def test_a_long_text_is_read_whole(read):
    text = "nebula " * 40_000
    assert read(PAIRS, f'item,text\n1,"{text}"\n2,sail\n').content.counts[0].sum() == 40_000


def test_what_spreadsheets_leave_behind(read, told):
    pairs = ",user,item,time,\n0,ana,1,10,\n1,bo,2,20,\n,,,,\n2,ana,2,30,\n,user,item,time,\n3,bo,,40,\n4,,1,50,,,\n"
    pairs += "\n   \n\n"
    assert read(pairs).fingerprint() == read().fingerprint()
    lines = [line.partition("pairs.csv: ")[2] for line in told()]
    for line in (
        "1 row without any value left out",
        "1 line like the header left out",
        "2 columns without a name left out",
        "1 row without an id of the user left out (the first: line 8)",
    ):
        assert any(line == one or line in one for one in lines), (line, lines)


def test_rows_without_an_id_are_left_out_and_counted(read, told):
    data = read(PAIRS + "bo,,40\nbo,,50\n,1,60\n", ITEMS + ",lost\n")
    assert data.fingerprint() == read().fingerprint()
    said = "\n".join(told())
    assert "pairs.csv: 2 rows without an id of the item left out (the first: line 5)" in said
    assert "pairs.csv: 1 row without an id of the user left out (the first: line 7)" in said
    assert "items.csv: 1 row without an id of the item left out (the first: line 4)" in said


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, pa.table])
def test_frames_without_some_ids(make):
    pairs = make({"user": ["ana", None, "bo"], "item": [1, 2, None]})
    data = from_frames(pairs, make({"item": [1, 2], "text": ["comet", "sail"]}))
    assert (data.user_ids.tolist(), data.item_ids.tolist()) == (["ana"], [1, 2])  # pandas makes them floats


def test_ids_that_look_like_nothing_are_ids(read):
    data = read("user,item\nNA,null\nNone,nan\n", "item,text\nnull,comet\nnan,sail\nNA,mast\n")
    assert data.user_ids.tolist() == ["NA", "None"]
    assert data.item_ids.tolist() == ["null", "nan", "NA"]


def test_ids_that_a_program_wrote_as_floats(read):
    data = read("user,item\n1.0,1\n2.0,2\n", "item,text\n1.0,comet\n2.0,sail\n")
    assert (data.user_ids.tolist(), data.item_ids.tolist()) == ([1, 2], [1, 2])


def test_decimal_commas(read):
    data = read("user;item;weight\nana;1;0,5\nbo;2;1.234,25\n", ITEMS)
    assert data.interactions.confidences.tolist() == [0.5, 1234.25]
    with pytest.raises(InputError, match=r"pairs\.csv:3: the weight '1,000' may be a number of thousands"):
        read("user;item;weight\nana;1;2\nbo;2;1,000\n", ITEMS)


def test_quotes_in_a_table_of_tabs_and_quoted_line_ends(read):
    data = read(PAIRS, 'item\ttext\n1\t"comet" nebula café\n2\tsail mast\n')
    assert data.content.vocabulary == read().content.vocabulary
    data = read(PAIRS, 'item,text\n1,"comet\nnebula\n\n""café"""\n2,sail mast\n')
    assert data.content.vocabulary == read().content.vocabulary


# --- B8: times -------------------------------------------------------------------------------------------------------

MOMENT = dt.datetime(2024, 5, 1, 10, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    "text",
    [
        "2024-05-01 10:00:00 UTC",
        "2024-05-01T10:00:00Z",
        "2024-05-01T12:00:00+02:00",
        "2024-05-01 12:00:00.000 +0200",
        "2024-05-01 10:00",
        "2024/05/01 10:00:00",
        "Wed, 01 May 2024 10:00:00 GMT",
        "01.05.2024 10:00",
        "2024-05-01 10:00:00 +0000 UTC",
        "2024-05-01 10:00:00.000000000",
        "May 1, 2024 10:00 AM",
        "05/01/2024 10:00:00 AM",
        "1 May 2024 12:00:00 +0200",
        f"{MOMENT.timestamp():.0f}",
        f"{1000 * MOMENT.timestamp():.0f}",
        f"{1e6 * MOMENT.timestamp():.0f}",
        f"{1e9 * MOMENT.timestamp():.0f}",
    ],
)
def test_times_as_people_write_them(read, text):
    assert read(f'user,item,time\nana,1,"{text}"\n').interactions.times.tolist() == [MOMENT.timestamp()]


def test_days_and_months(read):
    def days(*texts):
        data = read("user,item,time\n" + "".join(f"u{n},1,{text}\n" for n, text in enumerate(texts)))
        return [dt.datetime.fromtimestamp(time, dt.UTC).strftime("%d %b %y") for time in data.interactions.times]

    assert days("05/01/2024", "13/01/2024") == ["05 Jan 24", "13 Jan 24"]
    assert days("05/01/2024", "01/13/2024") == ["01 May 24", "13 Jan 24"]
    assert days("2024-05-01", "2024-1-3") == ["01 May 24", "03 Jan 24"]


@pytest.mark.parametrize("cell", ["", "NA", "yesterday", "now", "inf", "2024-13-45", "2024-05-01 10:00 QQQ"])
def test_a_missing_time_is_a_warning_and_an_error_only_for_a_split_by_time(read, told, tmp_path, cell):
    pairs = PAIRS + f"bo,1,{cell}\n"
    data = read(pairs)
    assert np.isnan(data.interactions.times).sum() == 1
    assert any("pairs.csv: 1 of 4 times is missing or cannot be read" in line and "line 5" in line for line in told())
    data.save(tmp_path / "saved")
    assert Dataset.load(tmp_path / "saved").fingerprint() == data.fingerprint()
    with pytest.raises(InputError, match="of pairs 1 of 4 pairs has no time"):
        by_time(data, 0.5)
    with pytest.raises(InputError, match=r"pairs\.csv:5: the time .*; give a number or a date"):
        read(pairs, reading=Reading(need_time=True))


def test_times_in_frames():
    times = [MOMENT, None]
    for make in (pd.DataFrame, pl.DataFrame):
        data = from_frames(make({"user": [1, 2], "item": [1, 1], "time": times}), make({"item": [1], "text": ["sail"]}))
        np.testing.assert_array_equal(data.interactions.times, [MOMENT.timestamp(), np.nan])
    stamps = {"user": [1], "item": [1], "time": np.array(["2024-05-01T10:00"], "datetime64[ns]")}
    assert from_frames(stamps, {"item": [1], "text": ["sail"]}).interactions.times.tolist() == [MOMENT.timestamp()]
    assert from_frames(stamps | {"time": [pd.NaT]}, {"item": [1], "text": ["sail"]}).interactions.times is None


# --- B9: ratings with clicks -----------------------------------------------------------------------------------------


def rated(*ratings):
    return "user,item,rating\n" + "".join(f"u{n},{1 + n % 2},{rating}\n" for n, rating in enumerate(ratings))


@pytest.mark.parametrize(
    ("ratings", "kept", "said"),
    [
        ((0, 1, 1, 0), [1, 2], "2 of 4 pairs were left out, since a rating of 0 or less is no choice"),
        ((-1, 1, 1, -1), [1, 2], "2 of 4 pairs were left out, since a rating of 0 or less"),
        (("False", "True", "true", "no"), [1, 2], "2 of 4 pairs were left out, since a rating of 0 or less"),
        (("dislike", "like", "like", "dislike"), [1, 2], "2 of 4 pairs were left out, since a rating of 0 or less"),
        ((0, 5, 3, 1), [1, 2, 3], "1 of 4 pairs was left out, since a rating of 0 or less"),
        ((1, 5, 3, 2), [0, 1, 2, 3], "ratings from 1 to 5 count alike, those of 1 as chosen too; --min-rating"),
        ((1, 1, 1, 1), [0, 1, 2, 3], None),
        ((1, "", "", 1), [0, 1, 2, 3], None),
        (("good", "bad", "good", "bad"), [0, 1, 2, 3], "no number and is left out: 4 pairs count as chosen"),
    ],
)
def test_what_a_column_of_ratings_says_of_clicks(read, told, ratings, kept, said):
    data = read(rated(*ratings))
    assert data.user_ids.tolist() == [f"u{n}" for n in kept]
    assert data.interactions.ratings.tolist() == [1] * len(kept)
    about = [line for line in told() if "rating" in line]
    assert bool(about) == (said is not None)
    assert said is None or any(said in line for line in about)
    if said and "are no choices" in said:
        assert "--ratings stars" in about[0]


def test_a_bound_of_choices(read):
    reading = Reading(min_rating=4)
    assert read(rated(5, 3, 4, 1), reading=reading).user_ids.tolist() == ["u0", "u2"]
    assert read(rated(0, 1, 1, 0), reading=Reading(min_rating=-1)).n_users == 4
    frames = {"user": [1, 2], "item": [1, 1], "rating": [5, 1]}, {"item": [1], "text": ["sail"]}
    assert from_frames(*frames, reading=reading).user_ids.tolist() == [1]
    with pytest.raises(InputError, match="no pair has a rating of 9 or more"):
        read(rated(5, 3), reading=Reading(min_rating=9))
    with pytest.raises(InputError, match="no pair has a rating above 0"):
        read(rated(0, 0))
    with pytest.raises(InputError, match=r"pairs\.csv:3: the rating 'x' cannot be used"):
        read(rated(5, "x"), reading=reading)
    with pytest.raises(InputError, match="has no column rating, of which --min-rating 4 is"):
        read(PAIRS, reading=reading)


# --- B10: words -------------------------------------------------------------------------------------------------------

JAPANESE = ["深層学習の研究", "深層学習の応用", "画像認識の研究", "画像認識と学習"]


def catalogue(texts):
    return {"user": [1, 2], "item": [0, 1]}, {"item": list(range(len(texts))), "text": list(texts)}


def test_scripts_without_blanks_are_warned_about_and_bigrams_share_words(told):
    whole = from_frames(*catalogue(JAPANESE))
    assert any("--tokenizer bigrams" in line for line in told())
    assert whole.content.counts.nnz == len(JAPANESE)  # one token each
    pairs = from_frames(*catalogue(JAPANESE), reading=Reading(tokenizer="bigrams"))
    text = JAPANESE[0]
    expected = {text[k : k + 2] for k in range(len(text) - 1)}
    row = pairs.content.counts[0].indices
    assert {pairs.content.vocabulary[word] for word in row} == expected
    assert (np.diff(pairs.content.counts.tocsc().indptr) > 1).sum() >= 5  # words of several items


def test_words_of_any_script_keep_their_marks():
    texts = ["हिन्दी पुस्तक", "Ｗｉｄｅ CAFE\u0301", "one café"]
    data = from_frames(*catalogue(texts), reading=Reading(tokenizer="unicode-words"))
    assert set(data.content.vocabulary) == {"हिन्दी", "पुस्तक", "wide", "café", "one"}


@pytest.fixture
def module(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_words.py").write_text(
        textwrap.dedent(
            """
            def of_slashes(text):
                return text.split("/")
            class Letters:
                def __call__(self, text):
                    return list(text)
            def broken(text):
                return [1]
            """
        )
    )
    yield tmp_path
    sys.modules.pop("my_words", None)


def test_a_tokenizer_of_ones_own_is_kept_and_needs_consent_where_a_folder_names_it(module, tmp_path, monkeypatch):
    data = from_frames(*catalogue(["a/b c", "a", "the"]), reading=Reading(tokenizer="my_words.of_slashes"))
    assert data.content.vocabulary == ("a", "b c", "the")
    data.save(tmp_path / "saved")
    monkeypatch.setattr("pyro_cvae.data.text._consented", set())
    sys.modules.pop("my_words")
    again = Dataset.load(tmp_path / "saved")
    assert "my_words" not in sys.modules
    with pytest.raises(InputError, match=r"importing it runs code; if you know it, consent with --trust my_words\.of"):
        again.content.of(["b c/a/a"])
    assert "my_words" not in sys.modules
    monkeypatch.setattr("pyro_cvae.data.text._consented", {"my_words.of_slashes"})
    assert again.content.of(["b c/a/a"]).counts.toarray().tolist() == [[2, 1, 0]]
    letters = from_frames(*catalogue(["ab", "a"]), reading=Reading(tokenizer="my_words:Letters"))
    assert letters.content.vocabulary == ("a", "b")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("my_words.broken", "returned no list of texts"),
        ("my_words.missing", "has no missing"),
        ("no_such_module.f", "importing no_such_module failed"),
        ("my_words.__doc__", "is no function of a text"),
    ],
)
def test_tokenizers_that_cannot_be_used(module, name, said):
    with pytest.raises(InputError, match=said):
        from_frames(*catalogue(["a b", "c"]), reading=Reading(tokenizer=name))
    with pytest.raises(InputError, match="must be one of words, unicode-words, bigrams"):
        Reading(tokenizer="wrods")


def test_sequences_of_tokens_have_the_tokenizer_too(tmp_path):
    pairs, items = catalogue(JAPANESE)
    pd.DataFrame(pairs).to_csv(tmp_path / "p.csv", index=False)
    pd.DataFrame(items | {"title": JAPANESE}).to_csv(tmp_path / "i.csv", index=False)
    data = load_dataset(tmp_path / "p.csv", tmp_path / "i.csv", ["title-tokens"], reading=Reading(tokenizer="bigrams"))
    tokens = data.others["title-tokens"]
    assert [tokens.vocabulary[t] for t in tokens.tokens[:6]] == [JAPANESE[0][k : k + 2] for k in range(6)]
    data.save(tmp_path / "saved")
    again = Dataset.load(tmp_path / "saved")
    assert again.fingerprint() == data.fingerprint()
    assert again.others["title-tokens"].of(["深層"]).tokens.tolist() == [tokens.vocabulary.index("深層")]
    assert again.content.of(["深層"]).counts.nnz == 1


def test_words_that_tell_nothing_are_warned_about(told):
    from_frames(*catalogue([f"w{n}a w{n}b" for n in range(20)]))
    assert any("40 of 40 words stand in one item alone" in line for line in told())
    from_frames(*catalogue([f"w{n % 3}a" for n in range(20)]))
    assert any("20 of 20 texts are of a single word" in line for line in told())


def test_ordinary_words_are_not_warned_about(told):
    rng = np.random.default_rng(0)
    words = [f"w{n}x" for n in range(50)]
    from_frames(*catalogue([" ".join(rng.choice(words, 8)) for _ in range(40)]))
    assert not any("word" in line for line in told())


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("<p>comet <b>neb</b>ula</p><script>var x = 'evil';</script><style>p {color: red}</style>", "comet nebula"),
        ("comet<br/>nebula", "comet nebula"),
        ("comet &amp; nebula&nbsp;sail &#8211; &lt;p&gt;mast&lt;/p&gt;", "comet & nebula sail – mast"),
        ("<!-- hidden -->comet", "comet"),
        ('<a href="http://x/y?a=1&b=2" title="tooltip">comet</a>', "comet"),
        ("a < b and vector<int> & AT&T", "a < b and vector<int> & AT&T"),
        ("R&D; 3 <b 4", "R&D; 3 <b 4"),
    ],
)
def test_html(text, plain, told):
    data = from_frames({"user": [1], "item": [1]}, {"item": [1, 2], "text": ["sea", "sea"], "title": [text, "x"]})
    assert data.titles.tolist() == [plain, "x"]
    assert any("the column title: HTML was taken out of 1 text (" in line for line in told()) == (text != plain)
    kept = {"item": [1, 2], "text": ["sea", "sea"], "title": [text, "x"]}
    assert from_frames({"user": [1], "item": [1]}, kept, reading=Reading(html="keep")).titles[0] == text


# --- B11: texts that are none ----------------------------------------------------------------------------------------


def test_numbers_dates_and_lists_become_text(told):
    titles = [1984, 2001.0, 3.5, np.nan, dt.date(2024, 5, 1), ["Crime", "Drama"], b"caf\xc3\xa9"]
    items = pd.DataFrame({"item": range(7), "text": ["sea"] * 7, "title": pd.Series(titles, dtype=object)})
    data = from_frames({"user": [1], "item": [0]}, items)
    assert data.titles.tolist() == ["1984", "2001", "3.5", "", "2024-05-01", "Crime Drama", "café"]
    assert any("items: the column title: 6 cells were made text" in line for line in told())
    numeric = pd.DataFrame({"item": [1, 2], "text": [7, 8], "title": [1984, np.nan]})
    data = from_frames(pd.DataFrame({"user": [1], "item": [1]}), numeric)
    assert data.titles.tolist() == ["1984", ""]


def test_characters_that_no_file_can_hold(tmp_path, told):
    items = {"item": ["x\ud800", "b"], "text": ["comet \ud83d\ude00 \udfff", "sail\0or"], "title": ["\ud800t", "u"]}
    data = from_frames({"user": ["\udc80"], "item": ["x\ud800"]}, items)
    assert data.titles.tolist() == ["\ufffdt", "u"]
    assert data.item_ids.tolist() == ["x\\ud800", "b"]
    assert "sailor" in data.content.vocabulary
    assert any("the column text: 2 texts have undecodable characters" in line for line in told())
    data.save(tmp_path / "saved")
    assert Dataset.load(tmp_path / "saved").fingerprint() == data.fingerprint()
    for value in (*data.titles, *data.item_ids, *data.user_ids):
        value.encode()


def test_nul_bytes_are_left_out_and_counted(read, told):
    data = read(PAIRS, ITEMS.replace("sail", "sa\0il"))
    assert data.fingerprint() == read().fingerprint()
    assert any("items.csv: 1 NUL characters were left out" in line for line in told())


# --- the same for every table -----------------------------------------------------------------------------------------


def test_tables_of_further_contents_are_as_forgiving(read, tmp_path):
    (tmp_path / "tags.CSV.gz").write_bytes(
        gzip.compress("ITEM;Text\n1;<b>red</b> blue\n2;1984\n;lost\n".encode("utf-16"))
    )
    (tmp_path / "numbers.tsv").write_text("Item ID\tp\tq\n2\t0,5\t1\n1\t2\t3\n")
    data = read(contents=[f"tags={tmp_path / 'tags.CSV.gz'}", f"numbers=vectors:{tmp_path / 'numbers.tsv'}"])
    assert data.others["tags"].vocabulary == ("1984", "blue", "red")
    assert data.others["numbers"].values.tolist() == [[2, 3], [0.5, 1]]


def test_parquet_tables_have_the_same_repairs(tmp_path):
    pq.write_table(pa.table({"User": ["ana", None], "Item": [1.0, 2.0], "Rating": [1, 0]}), tmp_path / "p.parquet")
    pq.write_table(
        pa.table({"item": [1, 2], "text": ["<p>comet</p>", "sail"], "title": [1984, None]}), tmp_path / "i.parquet"
    )
    data = load_tables(tmp_path / "p.parquet", tmp_path / "i.parquet", contents=[Source("title")])
    assert (data.user_ids.tolist(), data.item_ids.tolist()) == (["ana"], [1, 2])
    assert data.titles.tolist() == ["1984", ""]


def test_a_data_set_made_by_hand_can_be_saved(tmp_path):
    data = from_frames({"user": [1], "item": [1]}, {"item": [1], "text": ["sail"]})
    odd = replace(data, item_ids=np.array(["a\ud800"], object), titles=np.array(["\ud83d\ude00\udfff"], object))
    assert (odd.item_ids.tolist(), odd.titles.tolist()) == (["a\\ud800"], ["😀\ufffd"])
    replace(odd, name="folder\udcff").save(tmp_path / "saved")
    again = Dataset.load(tmp_path / "saved")
    assert (again.fingerprint(), again.name) == (odd.fingerprint(), "folder\udcff")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_lists_of_ids_of_any_line_end_and_encoding(tmp_path, encoding):
    (tmp_path / "ids.txt").write_bytes("größe\r\n\r\n 7 \rb\n".encode(encoding))
    named = "latin-1" if encoding == "latin-1" else ""
    assert read_ids(str(tmp_path / "ids.txt"), named) == ["größe", "7", "b"]


@pytest.mark.parametrize("seed", range(3))
def test_damaged_tables_are_read_or_refused_in_one_line(read, seed):
    """A hundred tables with bytes put in, cut out and changed, under options of all kinds: never anything else."""
    rng = random.Random(seed)
    pairs = rated(0, 1, 2, 3, 4, 5).encode()
    bits = [b"\0", b"\xff", b'"', b";", b"\t", b"\r", b"\xed\xa0\x80", b"1e999", b"<p", b"<!--", b"<![x", b"&#x110000;"]
    bits += [b"9999-12-31T23:59:59-23:59", b"99/99/2024", b"1,000", b"sep=|\n", b"user,", b"May 1 99999", b"9" * 40]
    for _ in range(100):
        tables = [bytearray(pairs), bytearray(ITEMS.encode())]
        for table in tables:
            for _ in range(rng.randint(0, 3)):
                at = rng.randrange(len(table))
                table[at : at + rng.choice([0, 0, 1, 9])] = rng.choice(bits)
        encoding = rng.choice(["", "", "latin-1", "utf-16", "punycode", "utf-7"])
        reading = Reading(separator=rng.choice(["", "", ";", "::"]), encoding=encoding, tokenizer="bigrams")
        try:
            read(*map(bytes, tables), reading=reading, ratings=rng.choice(["clicks", "stars"]))
        except InputError as error:
            assert "\n" not in str(error)
            assert error.remedy
