"""Nothing that is read from a message or a file can run code: the source holds no call that would."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for folder in ("fedgc", "strategies", "clients", "experiments") for path in
                 (ROOT / folder).rglob("*.py"))  # fmt: skip

#: Modules whose readers make any object, or run what they read.
MODULES = {
    "pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "jsonpickle", "yaml", "code",
    "codeop", "runpy", "imp",
}  # fmt: skip
BUILTINS = {"eval", "exec", "compile", "__import__", "input"}
#: Functions of other modules that unpickle, or start a shell; and what has to be said for them not to.
FUNCTIONS: dict[str, tuple[str, object] | None] = {
    "numpy.load": ("allow_pickle", False),
    "numpy.lib.format.read_array": ("allow_pickle", False),
    "numpy.save": ("allow_pickle", False),
    "torch.load": ("weights_only", True),
    "pandas.read_pickle": None,
    "os.system": None,
    "os.popen": None,
    "importlib.import_module": None,
    "importlib.__import__": None,
}


def problems(source: str) -> Iterator[str]:
    """Yield what in a module could run code that it reads."""
    tree = ast.parse(source)
    names: dict[str, str] = {}  # what a name in the module stands for
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
                if alias.name.split(".")[0] in MODULES:
                    yield f"line {node.lineno}: imports {alias.name}"
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names.update({alias.asname or alias.name: f"{module}.{alias.name}" for alias in node.names})
            if node.level == 0 and module.split(".")[0] in MODULES:
                yield f"line {node.lineno}: imports from {module}"
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            if not (isinstance(node.value, ast.Constant) and node.value.value is False):
                yield f"line {node.value.lineno}: allow_pickle is not False"
        elif isinstance(node, ast.keyword) and node.arg == "shell":
            yield f"line {node.value.lineno}: starts a shell"
        elif isinstance(node, ast.Name | ast.Attribute):
            full = _full_name(node, names)
            if isinstance(node, ast.Name) and node.id in BUILTINS and node.id not in names:
                yield f"line {node.lineno}: {node.id}"
            elif full in FUNCTIONS:
                call = next((c for c in ast.walk(tree) if isinstance(c, ast.Call) and c.func is node), None)
                if call is None or not _is_harmless(call, FUNCTIONS[full]):
                    yield f"line {node.lineno}: {full}"


def _is_harmless(call: ast.Call, needed: tuple[str, object] | None) -> bool:
    if needed is not None:
        said = {k.arg: k.value.value for k in call.keywords if isinstance(k.value, ast.Constant)}
        return needed[0] in said and said[needed[0]] is needed[1]
    # A module may be named in the source, or be one of the package that names it.
    name = call.args[0] if call.args else None
    own = (
        name.values[0].value
        if isinstance(name, ast.JoinedStr) and isinstance(name.values[0], ast.FormattedValue)
        else None
    )
    named = isinstance(name, ast.Constant) or (isinstance(own, ast.Name) and own.id == "__name__")
    return isinstance(call.func, ast.Attribute | ast.Name) and "import" in ast.unparse(call.func) and named


def _full_name(node: ast.expr, names: dict[str, str]) -> str | None:
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        base = _full_name(node.value, names)
        return None if base is None else f"{base}.{node.attr}"
    return None


@pytest.mark.parametrize("path", SOURCES, ids=[str(path.relative_to(ROOT)) for path in SOURCES])
def test_no_source_reads_objects(path: Path) -> None:
    assert list(problems(path.read_text())) == []


def test_all_sources_are_looked_at() -> None:
    names = {str(path.relative_to(ROOT)) for path in SOURCES}
    assert {
        "clients/shard_store.py",
        "fedgc/records/array_bytes.py",
        "fedgc/checkpoint/tree.py",
        "fedgc/cli.py",
    } <= names


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import cloudpickle.cloudpickle as p",
        "from dill import loads",
        "import numpy as np\nnp.load(path)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import numpy as np\nnp.load(path, allow_pickle=flag)",
        "import numpy as np\nread = np.load",
        "from numpy import load\nload(path)",
        "from numpy import load as read\nread(path)",
        "import numpy\nnumpy.lib.format.read_array(file)",
        "from numpy.lib import format\nformat.read_array(file)",
        "import torch\ntorch.load(path)",
        "import torch\ntorch.load(path, weights_only=False)",
        "import yaml\nyaml.load(text)",
        "eval(text)",
        "run = exec",
        "[*map(eval, texts)]",
        "import os\nos.system(command)",
        "import subprocess\nsubprocess.run(command, shell=True)",
        "import importlib\nimportlib.import_module(name)",
        "import importlib\nimportlib.import_module(f'{name}.x')",
        "import os\nos.popen('ls')",
        "def f():\n    from marshal import loads\n    return loads(data)",
        "archive.load(path, allow_pickle=True)",
    ],
)
def test_what_would_is_found(source: str) -> None:
    assert list(problems(source))


@pytest.mark.parametrize(
    "source",
    [
        "import numpy as np\nnp.load(path, allow_pickle=False)",
        "import torch\ntorch.load(path, weights_only=True)",
        "model.eval()",
        "store.load(digest)",
        "import json\njson.loads(text)",
        "import re\nre.compile(text)",
        "import importlib\nimportlib.import_module('pyarrow')",
        "from importlib import import_module\nimport_module(f'{__name__}.{OPTIONAL[name]}')",
    ],
)
def test_what_would_not_is_let_pass(source: str) -> None:
    assert not list(problems(source))
