"""Texts in a locale that is not UTF-8: what is read, logged and shown is the same as in any other."""

import json
import os
import subprocess
import sys

import tiny
from lorary.base.fetch import digest_model
from lorary.data import rows as dataset

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def run(program, *arguments):
    env = {**os.environ, **ASCII, "PYTHONPATH": str(tiny.ROOT / "workflow")}
    return subprocess.run([sys.executable, *program, *map(str, arguments)], capture_output=True, env=env)


def test_a_model_whose_files_are_not_ascii_has_the_same_fingerprint(tmp_path):
    (tmp_path / "config.json").write_text('{"of": "Köln 北京"}', encoding="utf-8")
    code = "import sys, json; from pathlib import Path; from lorary.base.fetch import digest_model; "
    code += "print(json.dumps(digest_model(Path(sys.argv[1]))))"
    made = run(["-c", code], tmp_path)
    assert json.loads(made.stdout or "null") == digest_model(tmp_path), made.stderr.decode()


def test_a_log_says_what_is_not_ascii(tmp_path):
    code = "import sys, logging; from lorary.core.job import job\n"
    code += "with job(sys.argv[1], 'x'): logging.getLogger('lorary').info('K\\u00f6ln')"
    run(["-c", code], tmp_path / "x.log")
    assert "INFO Köln" in (tmp_path / "x.log").read_text(encoding="utf-8")


def test_a_question_that_is_not_ascii_reaches_what_answers(tmp_path):
    """And what cannot be shown is escaped."""
    code = "import sys; from lorary.answer import ask; from lorary import __main__\n"
    code += "ask.ask = lambda question, *rest: question\nsys.exit(__main__.main())"
    asked = run(["-c", code], "ask", "Köln?")
    assert asked.stdout == b"K\\xf6ln?\n", asked.stderr.decode()


def test_data_that_is_not_ascii_is_read_and_saved_as_anywhere(tmp_path):
    rows = tiny.make_rows(1, passages=1)
    rows[0]["question"] = "Wo liegt Köln 北京?"
    (tmp_path / "total.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    (tmp_path / "few.json").write_text('[{"question": "Köln?", "answer": "北京"}]', encoding="utf-8")
    code = "import sys; from pathlib import Path; from lorary.data import prompts, rows; folder = Path(sys.argv[1])\n"
    code += (
        "table = rows.load_all([folder / 'total.json'], -1, 'aug'); rows.save(table, str(folder / 'table.parquet'))\n"
    )
    code += "prompts.load_templates(sys.argv[2]); print(ascii(prompts.load_fewshot(str(folder / 'few.json'))))"
    made = run(["-c", code], tmp_path, tiny.ROOT / "resources/prompt_templates.yaml")
    assert made.stdout.decode() == ascii([{"question": "Köln?", "answer": "北京"}]) + "\n", made.stderr.decode()
    assert dataset.read(str(tmp_path / "table.parquet"), 0, None) == dataset.load_all(
        [tmp_path / "total.json"], -1, "aug"
    )
