"""Templates: the wording of prompts in a YAML file, checked, and filled by the names of their fields."""

import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from ..core.errors import LoraryError, report
from ..core.twice import refuse_twice
from ..core.values import is_text

Fields = dict[str, tuple[set[str], set[str]]]  # of each template, those that it has to use, and may use


def load(key: str, path: str, fields: Fields, defaults: dict[str, str] | None = None) -> dict[str, str]:
    """The templates of a file by their names, which have a dot where one is within another; `defaults` are what it may
    lack. `key`: of the config; what it is by default lies in resources/ under its name. Raises LoraryError that names
    every fault."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        content = yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise LoraryError(f"{key}: {path} cannot be read as YAML: {error}") from None
    refuse_twice(f"{key}: {path} is not as it should be", text)
    flat: dict[str, str] = dict(defaults or {})
    for name, value in content.items() if isinstance(content, dict) else ():
        within = {f"{name}.{inner}": one for inner, one in value.items()} if isinstance(value, dict) else None
        flat |= {str(name): value} if within is None else within
    faults = [f"{name}: unknown key" for name in flat if name not in fields]
    faults += [fault for name, uses in fields.items() for fault in _template_faults(name, flat.get(name), *uses)]
    if faults:
        raise report(faults, f"{key}: {path} is not as it should be (resources/{key}.yaml is an example):")
    return flat


def fill(template: str, **values: str) -> str:
    """Put values into a template. Names only: a template reaches neither attributes nor items of a value."""
    return "".join(
        literal + (values[name] if name is not None else "")
        for literal, name, _, _ in string.Formatter().parse(template)
    )


def _template_faults(key: str, template: Any, required: set[str], allowed: set[str]) -> Iterator[str]:
    if not is_text(template):
        yield f"{key}: expected text, found {'nothing' if template is None else repr(template)[:60]}"
        return
    try:
        fields = list(string.Formatter().parse(template))
    except ValueError as error:
        yield f"{key}: {error} (write {{{{ and }}}} for braces that are text)"
        return
    names = {name for _, name, _, _ in fields if name is not None}
    for name in sorted(names - allowed):
        yield f"{key}: unknown field {{{name}}}; there is {', '.join(f'{{{n}}}' for n in sorted(allowed))}"
    for name in sorted(required - names):
        yield f"{key}: the field {{{name}}} is missing"
    if any(spec or conversion for _, _, spec, conversion in fields):
        yield f"{key}: a field takes no format and no conversion"
