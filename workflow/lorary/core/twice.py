"""Keys that are given twice in JSON or YAML, of which the libraries take the last in silence."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import yaml

from .errors import LoraryError


class Twice(dict):
    """An object of JSON that has a key twice."""

    def __init__(self, pairs: list[tuple[str, Any]]):
        super().__init__(pairs)
        self.keys_twice = [key for key, times in Counter(key for key, _ in pairs).items() if times > 1]


def known_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The mapping of an object, for json's `object_pairs_hook`; one of `Twice` where a key is there twice."""
    mapping = dict(pairs)
    return mapping if len(mapping) == len(pairs) else Twice(pairs)


def refused_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The same; raises ValueError where a key is there twice."""
    mapping = known_twice(pairs)
    if isinstance(mapping, Twice):
        raise ValueError(f"{mapping.keys_twice[0]} is given twice")
    return mapping


def refuse_twice(what: str, text: str) -> None:
    """Raises LoraryError where a mapping of YAML (or JSON) has a key twice; what is no YAML is for others to say."""
    try:
        root = yaml.compose(text.replace("\t", " "), Loader=yaml.SafeLoader)  # JSON may have tabs
    except (yaml.YAMLError, RecursionError):
        return
    for key, lines in _lines_of_twice(root):
        raise LoraryError(f"{what}: {key} is given twice, in lines {' and '.join(map(str, lines))}. Leave one.")


def _lines_of_twice(root: yaml.Node | None) -> Iterator[tuple[str, list[int]]]:
    nodes, seen = [root], set()
    while nodes:
        node = nodes.pop()
        if id(node) in seen:  # an alias
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            nodes += node.value
        elif isinstance(node, yaml.MappingNode):
            nodes += [value for _, value in node.value]
            lines: dict[str, list[int]] = {}
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode):
                    lines.setdefault(key.value, []).append(key.start_mark.line + 1)
            yield from ((key, found) for key, found in lines.items() if len(found) > 1)
