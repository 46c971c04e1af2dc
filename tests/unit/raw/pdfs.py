"""PDF files for tests. The demo's was made so, from the repository's root, each passage on a page:

PYTHONPATH=tests/unit/raw .venv/bin/python -c "import pdfs; pdfs.make_demo()"
"""

import datetime
import json
from pathlib import Path

from fpdf import FPDF


def write(path, *pages, title="", head="", font_size=12, **encryption):
    """One text a page, its lines as wide as the page, below `head` and above the page's number where there is one."""

    class Pages(FPDF):
        def header(self):
            self.cell(0, 10, head, align="C", new_x="LMARGIN", new_y="NEXT")

        def footer(self):
            self.set_y(-15)
            self.cell(0, 10, str(self.page_no()) if head else "", align="C")

    pdf = Pages()
    pdf.set_creation_date(datetime.datetime(2026, 11, 26, tzinfo=datetime.UTC))
    pdf.set_font("Helvetica", size=font_size)
    if title:
        pdf.set_title(title)
    if encryption:
        pdf.set_encryption(**encryption)
    for page in pages:
        pdf.add_page()
        pdf.multi_cell(0, 6, page)
    pdf.output(str(path))
    return path


def make_demo():
    questions = json.loads(Path("resources/demo/invented/smollm2-135m-instruct/total.json").read_text(encoding="utf-8"))
    passages = [passage for question in questions for passage in question["passages"]]
    about = [
        next(passage for passage in passages if passage.startswith(name))
        for name in ("Pellumrick Tramway", "Hobrenth Viaduct", "Gorvan Steldrith")
    ]
    title = "The Pellumrick Tramway"
    write("resources/demo/documents/Pellumrick_Tramway.pdf", *about, title=title, head=title)
