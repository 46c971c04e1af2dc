"""The benchmark of serving counts what is right, what is wrong and what is cut off."""

import json

import fake_answers as fakes
from benchmarks import serve


def test_each_text_is_compared_and_each_question_is_asked_so_often():
    right = {str(i): f"{i} <i>I</i>" for i in range(4)}
    asking = serve.Asking({**right, "4": "another"}, max_tokens=8)
    answers = fakes.Answers()
    with fakes.running(answers) as (_, url, _, _):
        port = int(url.rstrip("/").rpartition(":")[2])
        told = asking.by(3, port, 10)
        assert told.counts() == {"right": 8, "wrong": 2, "failed": 0, "cut": 0}
        assert len(told.seconds) == 10
        asked = [question for batch in answers.batches for question in batch]
        assert sorted(asked) == sorted(2 * "01234")
        assert serve._health(port)["answered"] == 10
        assert serve.Asking(right, max_tokens=17).by(1, port, 2).counts()["failed"] == 2
    # nobody is there any more: each client is cut off once, and asks no more
    assert asking.by(3, port, 10).counts() == {"right": 0, "wrong": 0, "failed": 0, "cut": 3}


def test_the_table_says_what_was_lost():
    counts = {"right": 30, "wrong": 1, "failed": 1, "cut": 0}
    one = {"requests": 32, "a_second": 2.0, "median_seconds": 1.0, "most_seconds": 2.0, **counts}
    stop = {"status": 0, "accepted": 70, "lost": 2, **counts}
    figures = {"machine": "a machine", "max_new_tokens": 20, "one_by_one": 0.5, "clients": {"8": one}}
    text = serve._table(json.loads(json.dumps({**figures, "stops": [stop, stop]})))
    assert "| 8 clients | 2.00 | 4.0× | 1.0, 2.0 s | 1, 1 |" in text
    assert "of 140 questions that were accepted 4 were lost and 2 answered otherwise than one by one" in text
    assert "exit status 0, 0." in text
