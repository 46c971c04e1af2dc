"""Results in the store: whole ones are found again, and nothing else."""

import json
import shutil

import pytest

from lorary.augment.kept import Results

KEY, OTHER = "ab" + "0" * 62, "cd" + "1" * 62
RESULT = {"pairs": [{"question": "Wer?", "answer": "Ödön\u2028"}], "complete": True, "tries_allowed": 4}


@pytest.fixture
def store(tmp_path):
    return str(tmp_path / "store")


def test_what_was_put_is_found_by_another_job(store):
    Results(store).put([(KEY, RESULT), (OTHER, {**RESULT, "pairs": []})])
    results = Results(store, 4)
    assert results.found == {}
    assert KEY in results
    assert results.found == {KEY: RESULT}
    assert "ef" + KEY[2:] not in results
    assert list(results.keys()) == [KEY, OTHER]
    results.path(KEY).unlink()
    assert list(results.keys()) == [OTHER]
    assert results.get(KEY) is None


@pytest.mark.parametrize(
    ("complete", "tried", "tries", "there"),
    [(True, 1, 9, True), (False, 4, 4, True), (False, 4, 3, True), (False, 4, 5, False)],
)
def test_what_is_incomplete_counts_as_missing_where_it_may_be_tried_more_often(store, complete, tried, tries, there):
    Results(store).put([(KEY, {"complete": complete, "tries_allowed": tried})])
    results = Results(store, tries)
    assert (KEY in results) is there
    assert (KEY in results.found) is there


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-20],
        lambda content: content.replace(b"Wer", b"Wie"),
        lambda content: b"\x80" + content,
        lambda content: b"null",
        lambda content: b'{"sha256": 3, "result": [3]}',
        lambda content: b"[" * 100_000,
    ],
)
def test_what_is_damaged_is_missing_and_can_be_put_again(store, damage):
    results = Results(store)
    results.put([(KEY, RESULT)])
    path = results.path(KEY)
    path.write_bytes(damage(path.read_bytes()))
    again = Results(store)
    assert KEY not in again
    assert again.found == {}
    again.put([(KEY, RESULT)])
    assert Results(store).get(KEY) == RESULT


def test_what_is_put_together_is_kept_together_or_not_at_all(store):
    results = Results(store)
    with pytest.raises(TypeError):
        results.put([(KEY, RESULT), (OTHER, {"what": object()})])
    assert list(results.keys()) == []
    assert results.found == {}
    assert not [path for path in results.directory.rglob("*") if path.is_file()]


def test_other_files_in_the_folder_are_none_of_its(store):
    results = Results(store)
    results.put([(KEY, RESULT)])
    folder = results.path(KEY).parent
    shutil.copy(results.path(KEY), folder / "notes.json")
    (folder / f".{KEY}.json.1.part").write_text("half")
    assert list(results.keys()) == [KEY]
    assert list(Results(store + "2").keys()) == []


def test_the_file_is_json_that_people_can_read(store):
    results = Results(store)
    results.put([(KEY, RESULT)])
    assert "Ödön" in results.path(KEY).read_text(encoding="utf-8")
    assert json.loads(results.path(KEY).read_text(encoding="utf-8"))["result"] == RESULT
