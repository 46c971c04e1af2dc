"""What a model is asked, in whose words: a YAML file."""

from ..data import templates

# The values that each has to use, and may use.
PASSAGE = {"passage", "title"}
FIELDS = {
    "answers": ({"passage", "count"}, {*PASSAGE, "count"}),
    "question": ({"passage", "answer"}, {*PASSAGE, "answer", "sentence"}),
    "check": ({"passage", "question"}, {*PASSAGE, "question"}),
    "check_without": ({"question"}, {"question"}),
    "rewrite": ({"passage"}, {*PASSAGE, "keep"}),
    "full_answer": ({"answer"}, {"answer", "sentence"}),
    "rule": ({"subject"}, {"subject"}),
    "reference.rewrite": ({"passage"}, PASSAGE),
    "reference.pairs": ({"passage"}, PASSAGE),
}


def load_wording(path: str) -> dict[str, str]:
    """The templates by their names, `reference.pairs` and so on, checked. Raises LoraryError."""
    return templates.load("augment_prompts", path, FIELDS)
