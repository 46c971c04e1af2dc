"""Folders of documents: how they are read and cut, what is refused, and what is kept until a document changes."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny
from lorary.core.errors import LoraryError
from lorary.raw import documents, kept
from lorary.raw.cut import TINY, cut
from lorary.raw.sections import Document, Section
from lorary.raw.text import unwrapped, words

from . import pdfs

DEMO = tiny.ROOT / "resources/demo"
SENTENCE = "Every one of these sentences has eight words. "


def write(folder, **files):
    """Documents of a folder: `name_ending`, from text or from bytes."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        path = folder / ".".join(name.rsplit("_", 1))
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def read(folder, passage_words=100):
    return documents.read(str(folder), passage_words, str(folder.parent / "cache"))


def outline(folder, passage_words=100):
    found = documents.outline(str(folder), passage_words, str(folder.parent / "cache"))
    assert list(found) == sorted(found)
    assert all(Path(path).is_file() for path in found)
    return list(found.values())


def only(folder, passage_words=100):
    """The passages of the one document of a folder, as title, text and place."""
    [passages] = read(folder, passage_words)
    return [(passage.title, passage.text, passage.extra["place"]) for passage in passages]


def refusal(folder):
    with pytest.raises(LoraryError) as caught:
        outline(folder)
    return str(caught.value)


def test_the_demos_documents_are_its_passages():
    questions = json.loads((DEMO / "invented/smollm2-135m-instruct/total.json").read_text(encoding="utf-8"))
    written = {passage for question in questions for passage in question["passages"]}
    cut = documents.read(str(DEMO / "documents"), 100, "/dev/null/no-cache")
    assert [len(passages) for passages in cut] == [3, 3, 3, 3]
    assert {Path(passages[0].extra["file"]).suffix for passages in cut} == {".md", ".txt", ".pdf", ".html"}
    assert [passage.extra["place"] for passage in cut[2]] == ["page 1", "page 2", "page 3"]
    texts = [passage.text for passages in cut for passage in passages]
    assert len(texts) == len(set(texts)) == 12
    assert set(texts) == written


def test_the_demos_questions_are_those_of_its_data():
    written = json.loads((DEMO / "invented/smollm2-135m-instruct/total.json").read_text(encoding="utf-8"))
    plain = json.loads((DEMO / "questions.json").read_text(encoding="utf-8"))
    assert plain == [{key: question[key] for key in ("question", "answer")} for question in written]


def test_each_passage_knows_where_it_is_from(tmp_path):
    folder = write(tmp_path / "docs", b_txt="Second.", a_md="# Birds\n\nAll of them.\n\n## Owls\n\nBy night.\n")
    (folder / "deep").mkdir()
    (folder / "deep/The_c.TXT").write_text("Third.")
    passages = [passage for document in read(folder) for passage in document]
    assert [(passage.text, passage.title, passage.extra) for passage in passages] == [
        ("All of them.", "Birds", {"file": "a.md", "place": "piece 1", "document": "Birds"}),
        ("By night.", "Birds: Owls", {"file": "a.md", "place": "Owls", "document": "Birds"}),
        ("Second.", "b", {"file": "b.txt", "place": "piece 1", "document": "b"}),
        ("Third.", "The c", {"file": "deep/The_c.TXT", "place": "piece 1", "document": "The c"}),
    ]


def test_pieces_end_with_sentences(tmp_path):
    pieces = only(write(tmp_path / "docs", a_txt=SENTENCE * 30))
    assert [words(text) for _, text, _ in pieces] == [96, 96, 48]
    assert all(text.endswith("eight words.") for _, text, _ in pieces)
    assert [place for _, _, place in pieces] == ["piece 1", "piece 2", "piece 3"]


def test_a_full_stop_within_a_name_ends_no_sentence(tmp_path):
    folder = write(tmp_path / "docs", a_txt="A lamp hung there. It was made by Dr. J. R. Belor in May.")
    assert [text for _, text, _ in only(folder, 10)] == ["A lamp hung there.", "It was made by Dr. J. R. Belor in May."]


def test_a_tiny_rest_goes_to_the_piece_before(tmp_path):
    pieces = only(write(tmp_path / "docs", a_txt=SENTENCE * 14))
    assert [words(text) for _, text, _ in pieces] == [112]


def test_a_short_paragraph_goes_with_the_beginning_of_a_list(tmp_path):
    text = f"{SENTENCE * 4}\n\n- {SENTENCE * 7}\n- {SENTENCE * 6}\n"
    assert [words(text) for _, text, _ in only(write(tmp_path / "docs", a_md=text))] == [89, 49]


@pytest.mark.parametrize(
    ("text", "many"),
    [("one two  three\n", 3), ("\u6f22\u5b57 kana \u304b\u306a", 5), ("\u0e01" * 8, 2), ("x" * 100, 3), (" \n", 0)],
)
def test_words_are_counted_without_blanks_too(text, many):
    assert words(text) == many


def test_text_without_blanks_is_cut(tmp_path):
    sentence = "\u96ea" * 19 + "\u3002"
    pieces = only(write(tmp_path / "docs", a_txt=sentence * 20))
    assert all(text.endswith("\u3002") for _, text, _ in pieces)
    assert [words(text) for _, text, _ in pieces] == [100] * 4


ALPHABET = st.sampled_from(
    ["word", "Name", "it.", "Who?", "1,903", "\u96ea\u3002", "-", "A-", "\n", "\n\n", " ", "\t", "e\u0301"]
)


@given(st.lists(ALPHABET, max_size=200).map(" ".join), st.integers(1, 40))
def test_no_word_is_lost(text, passage_words):
    section = Section(text.strip())
    passages = cut(Document("t", [section] if section.text else []), "t.txt", passage_words)
    assert "".join("".join(passage.text for passage in passages).split()) == "".join(text.split())
    assert all(passage.text.strip() for passage in passages)
    assert all(words(passage.text) <= (1 + TINY) * passage_words for passage in passages)


@given(st.text(alphabet="aB. -*|\n\t`1)\u96ea", max_size=300))
def test_unwrapping_changes_blanks_only(text):
    assert "".join(unwrapped(text).split()) == "".join(text.split())


def test_wrapped_lines_are_joined_and_others_kept():
    wrapped = """This paragraph was wrapped by hand at eighty letters or so, as in mail, and it
goes on here with black-
faced sheep.
And this was wrapped too, with a line that ends in a hyphen that stands for two-
and three-wheeled things.

- An item of a list, whose line is long enough to have been wrapped
  with its second line below the first
- Another

Roses are red,
violets are blue

| a table with a long line | of two cells in it |
| whose lines | stay |

```
code = "whose lines are long enough to be taken for text"
more = code
```
And after it a paragraph again, of which each line is as long as it has to
be."""
    lines = unwrapped(wrapped).split("\n")
    assert lines[0].endswith("it goes on here with black-")
    assert lines[1] == "faced sheep."
    assert "has to be." in lines[-1]
    assert "hyphen that stands for two- and three-wheeled things." in unwrapped(wrapped)
    assert (
        "- An item of a list, whose line is long enough to have been wrapped with its second line below the first"
        in lines
    )
    assert {"Roses are red,", "violets are blue", "| whose lines | stay |", "more = code", "```"} <= set(lines)


def test_markdown_is_cut_at_its_headings(tmp_path):
    page = f"""---
title: Not this, since there is one heading of the first level
---
Before.

# Trees of *Upper* Skelm #

```
# no heading
```

Firs
----

Text of firs. {SENTENCE * 20}

### Deeper [link](https://example.org) `code` {{#anchor}}

Text.

## Empty

## Larches

- one
---
"""
    pieces = only(write(tmp_path / "docs", a_md=page))
    assert [(title, place) for title, _, place in pieces] == [
        ("Trees of Upper Skelm", "piece 1"),
        ("Trees of Upper Skelm", "piece 1"),
        ("Trees of Upper Skelm: Firs", "Firs, piece 1"),
        ("Trees of Upper Skelm: Firs", "Firs, piece 2"),
        ("Trees of Upper Skelm: Firs: Deeper link code", "Deeper link code"),
        ("Trees of Upper Skelm: Larches", "Larches"),
    ]
    assert [text for _, text, _ in pieces][:2] == ["Before.", "```\n# no heading\n```"]
    assert pieces[-1][1] == "- one\n---"


def test_a_title_without_a_heading(tmp_path):
    folder = write(
        tmp_path / "docs",
        a_md="---\ntitle: From the top\n---\nText.",
        b_md="---\nno mapping\n---\nText.",
        c_html="<title>Of the page</title><h1>One</h1>x<h1>Two</h1>y",
    )
    assert [[passage.title for passage in document] for document in read(folder)] == [
        ["From the top"],
        ["b"],
        ["Of the page: One", "Of the page: Two"],
    ]


def test_half_a_letter_is_no_title(tmp_path):
    """Which YAML can say, and no file can hold."""
    half = '---\ntitle: "Half \\ud83d and whole \\ud83d\\ude00"\n---\nText.'
    folder = write(tmp_path / "docs", a_md=half, b_html="<title>&#xD83D;</title>&#xDE00;")
    [a], [b] = read(folder)
    assert a.title == a.extra["document"] == "Half \ufffd and whole \U0001f600"
    assert (b.title, b.text) == ("\ufffd", "\ufffd")


def test_html_is_read_as_it_is_seen(tmp_path):
    page = """<html><head><title>Site</title><style>p {}</style></head><body>
<header><h1>Banner</h1></header><nav>Menu</nav>
<article><header><h1>The <b>cheese</b></h1></header>
<p>Brelli<i>mar</i> is
   blue.<br>It ripens.</p><div>In a div<p>and below</p>after</div>
<script>lost()</script><!-- lost --><p hidden>lost</p>
<ul><li>one<li><button>x</button><li><ul><li><p>two</p></ul><li></ul>
<table><tr><th>Year</th><th>Prize</th></tr><tr><td>1931</td><td>Silver &amp; gold</td></tr></table>
<pre>  kept
    so</pre>
<h2>Later</h2>Text.</article><footer>lost</footer></body></html>"""
    [(title, text, _), later] = only(write(tmp_path / "docs", a_html=page))
    assert (title, later[:2]) == ("The cheese", ("The cheese: Later", "Text."))
    assert text == (
        "Brellimar is blue.\nIt ripens.\n\nIn a div\n\nand below\n\nafter\n\n- one\n- two\n\n"
        "Year | Prize\n\n1931 | Silver & gold\n\n  kept\n    so"
    )


def test_html_nested_deep(tmp_path):
    page = "<div>" * 5000 + "deep" + "</div>" * 5000
    assert only(write(tmp_path / "docs", a_html=page)) == [("a", "deep", "piece 1")]


def test_html_in_the_encoding_that_it_says(tmp_path):
    page = '<meta charset="windows-1252"><p>Caf\u00e9</p>'.encode("windows-1252")
    assert only(write(tmp_path / "docs", a_htm=page)) == [("a", "Caf\u00e9", "piece 1")]
    assert "a.htm: line 1 is not UTF-8 (byte 0xe9)" in refusal(
        write(tmp_path / "docs", a_htm=page.replace(b"ws-1252", b"x"))
    )


def test_pdf_is_put_together_over_lines_and_pages(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    first = "The narrow-gauge line is thirty-four kilo-\nmetres long and was opened for the first time by the two moun-"
    second = "tain towns. A narrow-\ngauge car runs on compressed air in two-\nand three-foot tanks of copper."
    pdfs.write(folder / "a.pdf", first, second, "The last.", title="Lines", head="The head of page 0")
    [(title, text, place)] = only(folder)
    assert (title, place) == ("Lines", "pages 1-3")
    assert text == (
        "The narrow-gauge line is thirty-four kilometres long and was opened for the first time by the two mountain"
        " towns. A narrow-gauge car runs on compressed air in two- and three-foot tanks of copper.\n\nThe last."
    )
    assert [place for _, _, place in only(folder, 20)] == ["pages 1-2", "pages 2-3"]


def test_faults_of_all_documents_are_told_together(tmp_path):
    folder = write(
        tmp_path / "docs",
        good_txt="Text.",
        blank_txt=" \n",
        latin_txt="one\ncaf\u00e9".encode("latin-1"),
        wide_md="text".encode("utf-16"),
        zip_txt=b"PK\0\0",
        heads_md="# Only\n\n## Headings\n",
        app_html="<body><script>app()</script></body>",
        torn_pdf=b"%PDF-1.4\nand no more",
        link_txt="",
    )
    pdfs.write(folder / "scan.pdf", "")
    pdfs.write(folder / "secret.pdf", "text", owner_password="a", user_password="b")
    (folder / "sub.txt").mkdir()
    told = refusal(folder)
    for line in (
        "docs: 10 faults in these documents:",
        "blank.txt: is empty",
        "link.txt: is empty",
        "latin.txt: line 2 is not UTF-8 (byte 0xe9). Convert",
        "wide.md: the text is UTF-16",
        "zip.txt: line 1 has bytes that are no text",
        "heads.md: has no text below its headings",
        "app.html: has no text to read",
        "torn.pdf: cannot be read as PDF",
        "scan.pdf: has no text: a scan? Have its letters recognised (ocrmypdf",
        "secret.pdf: is encrypted. Have a copy without its password here (qpdf",
    ):
        assert line in told
    assert "good" not in told


def test_what_is_in_the_folder_and_no_document(tmp_path):
    outside = write(tmp_path / "outside", secret_txt="Secret.")
    folder = write(tmp_path / "docs", a_txt="Text.")
    (folder / "again.txt").symlink_to("a.txt")
    (folder / "here").symlink_to(folder)
    assert len(read(folder)) == 2
    (folder / "out.txt").symlink_to(outside / "secret.txt")
    (folder / "out").symlink_to(outside)
    (folder / "gone.md").symlink_to("nowhere")
    (folder / "round.md").symlink_to("round.md")
    (folder / ".hidden.txt").symlink_to(outside / "secret.txt")
    os.mkfifo(folder / "pipe.txt")
    (folder / os.fsdecode(b"\xff.txt")).touch()
    told = refusal(folder)
    assert "out.txt is a link that leads out of the folder" in told
    assert "out is a link that leads out of the folder" in told
    assert "gone.md is a link that leads nowhere" in told
    assert "round.md is a link that leads nowhere" in told
    assert "pipe.txt is no file" in told
    assert "?.txt: this name is not UTF-8" in told
    assert "hidden" not in told


@pytest.mark.parametrize("name", ["{sample}.txt", "a}.md", "a\nb.txt", "a\x7f.pdf", "of {all}/a.txt"])
def test_a_name_that_snakemake_cannot_take(tmp_path, name):
    folder = write(tmp_path / "docs", a_txt="Text.")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("Text.")
    assert f"1 fault in these documents:\n  {name!r}: this name has braces or control" in refusal(folder)
    (folder / name).rename(folder / "other {}.docx")
    assert outline(folder) == [1]


def test_other_files_are_left_out_in_words(tmp_path, caplog):
    folder = write(tmp_path / "docs", a_txt="Text.", b_docx="x", c_docx="x", README="x")
    for _ in range(2):
        assert outline(folder) == [1]
    assert [record.getMessage().partition("left out: ")[2] for record in caplog.records] == ["2 × .docx, 1 × no ending"]
    (folder / "a.txt").unlink()
    assert "no document in this folder; there is 2 × .docx, 1 × no ending. Convert them" in refusal(folder)


def test_no_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").touch()
    assert "there is no such folder" in refusal(tmp_path / "gone")
    assert "is no folder" in refusal(tmp_path / "file.txt")
    assert "it is empty" in refusal(tmp_path / "empty")


@pytest.fixture
def cuttings(monkeypatch):
    """The names of the documents that are cut."""
    names = []
    original = documents.read_document
    monkeypatch.setattr(documents, "read_document", lambda path: names.append(path.name) or original(path))
    return names


def test_only_what_changes_is_cut_again(tmp_path, cuttings):
    folder = write(tmp_path / "docs", a_txt=SENTENCE * 20, b_md="Text.", c_html="<p>Text.")
    assert outline(folder) == [2, 1, 1]
    assert cuttings == ["a.txt", "b.md", "c.html"]
    first = read(folder)
    assert outline(folder) == [2, 1, 1]
    assert cuttings == ["a.txt", "b.md", "c.html"]
    write(folder, b_md=SENTENCE * 40)
    assert outline(folder) == [2, 4, 1]
    assert cuttings[3:] == ["b.md"]
    (folder / "c.html").unlink()
    assert outline(folder) == [2, 4]
    assert read(folder)[0] == first[0]
    assert cuttings[3:] == ["b.md"]
    assert outline(folder, 50) == [4, 7]
    assert cuttings[4:] == ["a.txt", "b.md"]


def test_a_damaged_cache_costs_time_only(tmp_path, cuttings):
    folder = write(tmp_path / "docs", a_txt="Text.")
    good = read(folder)
    for i, damage in enumerate(("", "{", "[]", '{"of": 1, "made": 2}', None)):
        for path in (tmp_path / "cache").rglob("*.json"):
            content = json.loads(path.read_text())
            path.write_text(json.dumps({**content, "made": ["x"] * 2}) if damage is None else damage)
        assert read(folder) == good
        assert outline(folder) == [1]
        assert len(cuttings) == i + 2


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path, caplog):
    folder = write(tmp_path / "docs", a_txt="Text.", b_txt="Text.")
    (tmp_path / "cache").touch()
    kept._tell.cache_clear()
    assert [len(passages) for passages in read(folder)] == [1, 1]
    assert outline(folder) == [1, 1]
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}/cache cannot be written (Not a directory): data are read anew by each call"
    ]


def test_processes_that_cut_at_once_agree(tmp_path):
    folder = write(tmp_path / "docs", **{f"d{i}_txt": SENTENCE * (i + 1) for i in range(20)})
    children = []
    for _ in range(4):
        if not (child := os.fork()):
            try:
                os._exit(0 if len(outline(folder, 20)) == 20 else 1)
            finally:
                os._exit(2)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert not list((tmp_path / "cache").rglob("*.part"))
