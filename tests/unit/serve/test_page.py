"""The page, in a real browser: a question is asked and answered, and nothing in a text is code."""

import pytest

import browser
import fake_answers as fakes

CODE = '<img src=x onerror="document.title = 1"><script>document.title = 2</script>'


@pytest.mark.skipif(not browser.CHROMIUM, reason="there is no chromium on this machine")
def test_a_question_is_asked_and_answered(tmp_path):
    answers = fakes.Answers()
    with fakes.running(answers) as (served, url, _, _), browser.visit(url, tmp_path) as page:
        page.until("document.querySelectorAll('option').length === 3")
        assert page.run("document.getElementById('method').value") == "prag"
        page.run(f"document.getElementById('question').value = {CODE!r}")
        page.run("document.getElementById('ask').click()")
        page.until("!document.getElementById('reply').hidden")
        assert page.run("document.getElementById('answer').innerText") == f"{CODE} <i>I</i>"
        assert page.run("document.getElementById('took').innerText").startswith("3 tokens in ")
        passages = page.run("document.getElementById('passages').innerText")
        assert "A <b>drauvenel</b> & its keys." in passages
        assert "total/data_0/passage_0, BM25 1.50: its adapter answered" in passages
        assert "(no text)" in passages
        assert page.run("document.querySelectorAll('img, b, i, section script').length") == 0
        assert page.run("document.title") == "Lorary"
        # what is refused is told
        served.batches.most_waiting = 0
        page.run("document.getElementById('ask').click()")
        page.until("document.getElementById('answer').className === 'failed'")
        assert "ask again later" in page.run("document.getElementById('answer').innerText")
        (complaint,) = page.complaints  # of that reply, and not of the policy
        assert "503" in complaint
    assert answers.batches == [[CODE]]
