"""How the house is built: which room may use which, one place for paths, one for private functions, no long module."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tiny

ROOMS = [
    "core",
    "raw",
    "data",
    "base",
    "adapters",
    "plan",
    "train",
    "translate",
    "answer",
    "serve",
    "augment",
    "report",
    "upkeep",
]
LIBRARY = tiny.ROOT / "workflow/lorary"
MODULES = sorted(path for path in LIBRARY.glob("*/*.py") if path.name != "__init__.py")
CODE = [path for path in sorted((tiny.ROOT / "workflow").rglob("*")) if path.suffix in (".py", ".smk")]
LONGEST = 350  # lines

# How a path of ours is taken apart: by its parts, or by the names in it.
APART = re.compile(
    r"""\.parts\b|partition\(["']/["']\)|split\(["']/["']\)|remove(pre|suf)fix\(["'](data_|passage_|lr=|rank=|aug_model=)"""
)
PRIVATE = re.compile(r"\b(torch|transformers)\b[\w.]*\._[a-z]|from (torch|transformers)[\w.]* import _")


def name(path: Path) -> str:
    return str(path.relative_to(tiny.ROOT / "workflow"))


def imported(path: Path) -> set[str]:
    """The modules of the library that a module imports, as room.module, or room."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            package = [path.parent.name] if node.level == 1 else []
            target = [*package, *(node.module or "").split(".")]
            target = [part for part in target if part]
            found |= {".".join([*target, alias.name][:2]) for alias in node.names}
    return found


def test_every_room_is_listed():
    assert {path.name for path in LIBRARY.iterdir() if path.is_dir() and path.name != "__pycache__"} == set(ROOMS)
    assert all(room in (LIBRARY / "__init__.py").read_text(encoding="utf-8") for room in ROOMS)
    assert all(f"{room}/" in (tiny.ROOT / "docs/house.md").read_text(encoding="utf-8") for room in ROOMS)


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_room_imports_only_from_those_before_it(path):
    room = path.parent.name
    for module in imported(path):
        other = module.partition(".")[0]
        assert ROOMS.index(other) <= ROOMS.index(room), f"{name(path)} imports {module}"


def test_scripts_stand_as_deep_in_their_rules_as_they_have_ever_done():
    """Snakemake takes that for a rule's code: else what was made before an update would be made again after it."""
    rules = "\n".join(path.read_text(encoding="utf-8") for path in (tiny.ROOT / "workflow/rules").glob("*.smk"))
    depths = {script: len(blanks) for blanks, script in re.findall(r'^( *)"\.\./scripts/(\w+)\.py"$', rules, re.M)}
    of_batches = {"train_adapters", "predict", "test_passages", "test_heldout"}
    of_runs = {"init_base_weight", "index_adapters", "score", "knowledge", "heldout", "export_adapter", "export_routes"}
    of_translators = {"train_translator", "translate_adapters"}
    assert {script for script, depth in depths.items() if depth == 16} == of_batches
    assert {script for script, depth in depths.items() if depth == 12} == of_runs | of_translators
    assert set(depths.values()) == {8, 12, 16}


def test_no_module_imports_itself_through_another():
    graph = {f"{path.parent.name}.{path.stem}": imported(path) for path in MODULES}

    def visit(module, above):
        assert module not in above, " -> ".join([*above, module])
        for other in graph.get(module, ()) if module not in done else ():
            visit(other, [*above, module])
        done.add(module)

    done = set()
    for module in graph:
        visit(module, [])
    assert len(done) >= len(graph) > 30


@pytest.mark.parametrize("path", CODE, ids=name)
def test_paths_of_ours_are_taken_apart_in_one_place(path):
    if name(path) != "lorary/plan/layout.py":
        assert not APART.search(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", CODE, ids=name)
def test_private_functions_are_reached_in_one_place(path):
    if name(path) != "lorary/core/private.py":
        assert not PRIVATE.search(path.read_text(encoding="utf-8"))


# What ruff's PLW1514 does not see: methods of what it cannot tell to be a path, processes, and logging.
OPENERS = {"read_text", "write_text", "FileHandler"}


@pytest.mark.parametrize("path", [path for path in CODE if path.suffix == ".py"], ids=name)
def test_every_text_is_read_and_written_with_its_encoding(path):
    """A locale need not be UTF-8, as LC_ALL=C is not."""
    for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(call, ast.Call):
            continue
        function = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        given = {keyword.arg for keyword in call.keywords}
        text = function in OPENERS or {"text", "universal_newlines"} & given
        assert not text or "encoding" in given, f"{name(path)}:{call.lineno}"


@pytest.mark.parametrize("path", CODE, ids=name)
def test_no_module_is_long(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


def test_the_plan_is_made_without_torch_and_what_else_is_slow():
    """Every job of a cluster makes it again."""
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "from lorary.plan import whole; from lorary.core import device, stop; from lorary.report import summary;"
        "slow = {'torch', 'transformers', 'peft', 'pandas', 'pyarrow', 'numpy', 'matplotlib'};"
        "print(sorted(slow & set(sys.modules)))"
    )
    found = subprocess.check_output([sys.executable, "-c", program, str(tiny.ROOT / "workflow")], text=True)
    assert found == "[]\n"


def test_no_script_imports_the_hub_before_its_job_is_offline():
    """core.job sets HF_HUB_OFFLINE, which huggingface_hub reads when it is imported."""
    imports = sorted(
        line
        for script in (tiny.ROOT / "workflow/scripts").glob("*.py")
        for line in script.read_text(encoding="utf-8").splitlines()
        if line.startswith("from lorary")
    )
    program = "; ".join(["import sys", "sys.path.insert(0, sys.argv[1])", *imports])
    program += "; print(sorted({'huggingface_hub', 'transformers', 'torch', 'peft'} & set(sys.modules)))"
    found = subprocess.check_output([sys.executable, "-c", program, str(tiny.ROOT / "workflow")], text=True)
    assert len(imports) > 30
    assert found == "[]\n"


def test_the_walk_of_a_passage_names_what_is_there():
    """In a cell of its tables each file is followed by its functions."""
    seen = 0
    for cell in re.findall(r"\| ([^|]*\.py`[^|]*)", (tiny.ROOT / "docs/walk.md").read_text(encoding="utf-8")):
        code = ""
        for word in re.findall(r"`([^`]+)`", cell):
            if word.endswith(".py"):
                code = (LIBRARY / word).read_text(encoding="utf-8")
                continue
            kind, _, function = word.rpartition(".")
            assert re.search(rf"^ *((async )?def|class) {function}\b", code, re.M), (cell, word)
            assert not kind or f"class {kind}" in code, (cell, word)
            seen += 1
    assert seen > 30
