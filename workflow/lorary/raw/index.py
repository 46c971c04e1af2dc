"""Which passages go with a question: an index of all passages, kept in a folder, and BM25 over it.

The question is put to title and text, two fields, and the better one counts, with half of the other, as the reference
(Su et al., SIGIR 2025) has Elasticsearch do. Words are stemmed as English ones. Beside the index lie the passages
themselves, to be read by number (their position, from 0).
"""

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core import files
from ..core.errors import damaged
from .passages import RawPassage
from .words import WORD, asked, spaced

if TYPE_CHECKING:
    import numpy as np
    import tantivy

VERSION = 1  # of what is found: it goes up where the same question may find others, or in another order
FIELDS = ("title", "text")
TIE = 0.5  # of the lesser field's score
DIGITS = 4  # of a score: beyond them, it depends on the order in which a processor adds
HEAP = 100_000_000  # bytes that are indexed in memory before they are written
GROUP = 1_000  # passages that are read at once

ABOUT, PASSAGES, WORDS = "about.json", "passages.parquet", "words"


def make(passages: Iterable[RawPassage], folder: str) -> int:
    """Index the passages in `folder`, which appears whole or not at all. Returns how many there are.

    Of passages with the same title and text only the first is found. about.json says `count`, `distinct`, `version`,
    `sha256` (`digest` of the passages), and the sha256 of each of the `files` of words.
    """
    with _written_whole(Path(folder)) as temporary:
        keys, sha256 = _keep(passages, temporary / PASSAGES)
        first = _first(keys)
        _index(temporary, first)
        about = {"count": len(first), "distinct": int(first.sum()), "version": VERSION, "sha256": sha256}
        about["files"] = {path.name: files.sha256(path) for path in sorted((temporary / WORDS).iterdir())}
        (temporary / ABOUT).write_text(f"{json.dumps(about, indent=1)}\n", encoding="utf-8")
    return len(first)


def digest(passages: Iterable[RawPassage]) -> str:
    """Of titles and texts in order."""
    digest = hashlib.sha256()
    for passage in passages:
        digest.update(_content(passage))
    return digest.hexdigest()


class Index:
    """What `make` left in a folder. Raises LoraryError where it is not there, or not as it was left."""

    def __init__(self, folder: str):
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.folder = folder
        try:
            about = json.loads(Path(folder, ABOUT).read_bytes())
            self.count, self.distinct = about["count"], about["distinct"]
            if about["version"] != VERSION:
                raise ValueError(f"made by another version of Lorary: {about['version']} instead of {VERSION}")
            for name, sha256 in about["files"].items():
                if files.sha256(Path(folder, WORDS, name)) != sha256:
                    raise ValueError(f"{WORDS}/{name} is not what it was")
            self._schema, self._searcher = _opened(Path(folder, WORDS), list(about["files"]))
            self._passages = pq.ParquetFile(Path(folder, PASSAGES), page_checksum_verification=True)
            if self._passages.metadata.num_rows != self.count:
                raise ValueError(f"{PASSAGES} has not its {self.count} passages")
        except (OSError, ValueError, LookupError, TypeError, AttributeError, pa.ArrowException) as error:
            raise damaged(folder, error) from None
        self._words, self._stems = _analyzer(stemmed=False), _analyzer(stemmed=True)

    def search(self, question: str, top: int) -> list[tuple[int, float]]:
        """The numbers and scores of the `top` passages that go best with the question, those of the same score by
        number; fewer, or none, where fewer share a word with it."""
        query = self._query(question)
        limit = top + 8
        while True:
            hits = self._hits(query, limit)
            # Of those with the same score as the last one, all must be seen to know which come first.
            if len(hits) < limit or hits[-1][0] < hits[top - 1][0] or limit >= self.distinct:
                break
            limit = min(4 * limit, self.distinct)
        numbers = self._numbers([address for _, address in hits])
        found = [(number, score) for number, (score, _) in zip(numbers, hits, strict=True) if score > 0]
        return sorted(found, key=lambda hit: (-hit[1], hit[0]))[:top]

    def scores(self, question: str, numbers: Sequence[int]) -> dict[int, float]:
        """Of the passages of these numbers those that share a word with the question, with the scores that `search`
        finds them with. (Of passages with the same title and text, only the first has one.)"""
        import tantivy

        wanted, kind = set(numbers), tantivy.FieldType.Unsigned
        if not wanted:
            return {}
        # Numbers are not indexed as words are, so that each is a range.
        each = [tantivy.Query.range_query(self._schema, "number", kind, number, number) for number in wanted]
        these = tantivy.Query.boolean_query([(tantivy.Occur.Should, one) for one in each])
        both = [self._query(question), tantivy.Query.const_score_query(these, 0.0)]
        hits = self._hits(tantivy.Query.boolean_query([(tantivy.Occur.Must, one) for one in both]), len(wanted))
        found = zip(self._numbers([address for _, address in hits]), hits, strict=True)
        return {number: score for number, (score, _) in found if score > 0}

    def passages(self, numbers: Sequence[int]) -> list[RawPassage]:
        """The passages of these numbers, in their order."""
        import pyarrow as pa

        found: dict[int, RawPassage] = {}
        try:
            for group in sorted({number // GROUP for number in numbers}):
                here = sorted({number for number in numbers if number // GROUP == group})
                rows = self._passages.read_row_group(group).take(pa.array([number % GROUP for number in here]))
                for row in rows.to_pylist():
                    found[row["number"]] = RawPassage(row["text"], row["title"], json.loads(row["extra"]))
            return [found[number] for number in numbers]
        except (OSError, ValueError, LookupError, pa.ArrowException) as error:
            raise damaged(self.folder, error) from None

    def _query(self, question: str) -> "tantivy.Query":
        import tantivy

        words = asked(self._words.analyze(spaced(question)))
        stems = [stem for word in words for stem in self._stems.analyze(word)]
        each = []
        for field in FIELDS:
            terms = [tantivy.Query.term_query(self._schema, field, stem, "freq") for stem in stems]
            each.append(tantivy.Query.boolean_query([(tantivy.Occur.Should, term) for term in terms]))
        return tantivy.Query.disjunction_max_query(each, TIE)

    def _hits(self, query: "tantivy.Query", limit: int) -> list[tuple[float, Any]]:
        try:
            hits = self._searcher.search(query, limit, count=False).hits
        except (OSError, ValueError) as error:
            raise damaged(self.folder, error) from None
        return [(round(score, DIGITS), address) for score, address in hits]

    def _numbers(self, addresses: list[Any]) -> list[int]:
        return [int(number or 0) for number in self._searcher.fast_field_values("number", addresses)]


def _keep(passages: Iterable[RawPassage], path: Path) -> "tuple[np.ndarray, str]":
    """Write the passages. Returns a key of each one's title and text (N, 2), and the digest of all."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = pa.string()
    schema = pa.schema([("number", pa.int64()), ("title", text), ("text", text), ("extra", text)])
    keys, digest = bytearray(), hashlib.sha256()
    with pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True) as file:
        numbered = enumerate(passages)
        while group := list(islice(numbered, GROUP)):
            rows = []
            for number, passage in group:
                content = _content(passage)
                digest.update(content)
                keys += hashlib.blake2b(content, digest_size=16).digest()
                extra = json.dumps(passage.extra, ensure_ascii=False)
                rows.append({"number": number, "title": passage.title, "text": passage.text, "extra": extra})
            file.write_table(pa.Table.from_pylist(rows, schema=schema))
    return np.frombuffer(keys, dtype=np.uint64).reshape(-1, 2), digest.hexdigest()


def _first(keys: "np.ndarray") -> "np.ndarray":
    """Which passages are the first with their key."""
    import numpy as np

    order = np.lexsort(keys.T)  # stable: of the same key, the first comes first
    ordered = keys[order]
    again = (ordered[1:] == ordered[:-1]).all(axis=1)
    first = np.ones(len(keys), dtype=bool)
    first[order[1:][again]] = False
    return first


def _index(folder: Path, first: "np.ndarray") -> None:
    """Index those of the passages kept in `folder` that are the first with their title and text."""
    import pyarrow.parquet as pq
    import tantivy

    builder = tantivy.SchemaBuilder()
    for field in FIELDS:
        builder.add_text_field(field, tokenizer_name="words", index_option="freq")
    builder.add_unsigned_field("number", fast=True)
    (folder / WORDS).mkdir()
    index = tantivy.Index(builder.build(), str(folder / WORDS))
    index.register_tokenizer("words", _analyzer(stemmed=True))
    writer = index.writer(HEAP, num_threads=1)  # several would share passages out as they come
    with pq.ParquetFile(folder / PASSAGES) as file:
        for group in range(file.num_row_groups):  # iter_batches would keep them all
            for row in file.read_row_group(group, columns=["number", *FIELDS]).to_pylist():
                if first[row["number"]]:
                    document = tantivy.Document()
                    document.add_unsigned("number", row["number"])
                    for field in FIELDS:
                        document.add_text(field, spaced(row[field]))
                    writer.add_document(document)
    writer.commit()
    writer.wait_merging_threads()
    for lock in (folder / WORDS).glob(".*.lock"):
        lock.unlink()
    for path in (folder / WORDS).iterdir():
        path.chmod((folder / PASSAGES).stat().st_mode)  # tantivy lets nobody else read some


def _opened(folder: Path, names: list[str]) -> "tuple[tantivy.Schema, tantivy.Searcher]":
    """The words of an index, whose folder need not be writable: tantivy wants to lock where it reads."""
    import tantivy

    # Its threads may still be at their lock file when the folder goes.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        for name in names:
            Path(place, name).symlink_to((folder / name).resolve())
        index = tantivy.Index.open(place)
        index.register_tokenizer("words", _analyzer(stemmed=True))
        index.config_reader("Manual")
        return index.schema, index.searcher()  # which has all files open


def _analyzer(stemmed: bool) -> "tantivy.TextAnalyzer":
    from tantivy import Filter, TextAnalyzerBuilder, Tokenizer

    builder = TextAnalyzerBuilder(Tokenizer.regex(WORD)).filter(Filter.lowercase())
    return (builder.filter(Filter.stemmer("english")) if stemmed else builder).build()


def _content(passage: RawPassage) -> bytes:
    return f"{json.dumps([passage.title, passage.text])}\n".encode()


@contextlib.contextmanager
def _written_whole(target: Path) -> Iterator[Path]:
    """Yields the temporary name of a folder, which gets its own when all in it is on disk."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(f".{target.name}.*.part"):  # by one that was killed, but maybe is at work
        with contextlib.suppress(FileNotFoundError):
            if time.time() - max(path.lstat().st_mtime for path in [left, *left.rglob("*")]) > files.ABANDONED:
                shutil.rmtree(left, ignore_errors=True)
    name = f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}"
    temporary, former = (target.with_name(f"{name}{ending}.part") for ending in ("", ".former"))
    temporary.mkdir()
    try:
        yield temporary
        for path in [*temporary.rglob("*"), temporary]:
            files.sync(path)
        while True:
            with contextlib.suppress(FileNotFoundError):
                target.rename(former)
            try:
                temporary.rename(target)
                break
            except OSError as error:  # another one was as quick, and its folder is there now
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                shutil.rmtree(former, ignore_errors=True)
        files.sync(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(former, ignore_errors=True)
