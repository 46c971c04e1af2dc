"""What a model is asked, in whose words: a YAML file."""

import string
from pathlib import Path

import yaml

from ..core.errors import LoraryError, report
from ..core.twice import refuse_twice
from ..core.values import is_text

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
    try:
        text = Path(path).read_text(encoding="utf-8")
        content = yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise LoraryError(f"augment_prompts: {path} cannot be read as YAML: {error}") from None
    refuse_twice(f"augment_prompts: {path} is not as it should be", text)
    flat: dict[str, object] = {}
    for key, value in content.items() if isinstance(content, dict) else ():
        flat |= {f"{key}.{name}": one for name, one in value.items()} if isinstance(value, dict) else {str(key): value}
    faults = [f"{key}: unknown key" for key in flat if key not in FIELDS]
    for key, (required, allowed) in FIELDS.items():
        faults += [f"{key}: {fault}" for fault in _faults(flat.get(key), required, allowed)]
    if faults:
        raise report(
            faults, f"augment_prompts: {path} is not as it should be (resources/augment_prompts.yaml is an example):"
        )
    return {key: str(value) for key, value in flat.items()}


def _faults(template: object, required: set[str], allowed: set[str]) -> list[str]:
    if not isinstance(template, str) or not is_text(template):
        return [f"expected text, found {'nothing' if template is None else repr(template)[:60]}"]
    try:
        names = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
    except ValueError as error:
        return [f"{error} (write {{{{ and }}}} for braces that are text)"]
    faults = [f"unknown field {{{name}}}" for name in sorted(names - allowed)]
    return faults + [f"the field {{{name}}} is missing" for name in sorted(required - names)]
