"""Private names of PyTorch stand in one file, `rlawrap/_torch.py`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import fx, nn

import rlawrap

ROOT = Path(rlawrap.__file__).parent
FILES = sorted(p for p in ROOT.rglob("*.py") if p.name != "_torch.py")

_GRAPH = fx.Graph()
_GRAPH.output(None)
#: Attributes of modules and graphs with a leading underscore; what `nn.Module` keeps its children,
#: parameters and buffers in is read everywhere, also in PyTorch's documentation.
TABLES = {"_modules", "_parameters", "_buffers", "_non_persistent_buffers_set"}
PRIVATE = {
    name
    for thing in (nn.Module(), _GRAPH, next(iter(_GRAPH.nodes)))
    for name in {*dir(thing), *vars(thing)}
    if name.startswith("_") and not name.startswith("__")
} - TABLES


def private_names(tree: ast.AST) -> Iterator[str]:
    """Imports of private names of torch, `torch.…._x`, and private attributes of its objects."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch":
            parts = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            yield from (part for part in parts if part.startswith("_"))
        if isinstance(node, ast.Attribute):
            text = ast.unparse(node)
            first, *parts = text.split(".")
            private = any(p.startswith("_") and not p.startswith("__") for p in parts)
            torchs = first in ("torch", "nn", "fx", "F", "dist") and private
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            if torchs or (node.attr in PRIVATE and not own):
                yield text


def test_the_check_sees_them() -> None:
    source = "from torch.utils import _pytree\ntorch._C\nm._forward_hooks\nself.graph._root"
    found = ["_pytree", "torch._C", "m._forward_hooks", "self.graph._root"]
    assert list(private_names(ast.parse(source))) == found
    assert list(private_names(ast.parse((ROOT / "_torch.py").read_text()))) != []


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_other_file_uses_them(path: Path) -> None:
    assert list(private_names(ast.parse(path.read_text()))) == []
