"""Messages about a module inside of a model, with their advice as calls on the whole model."""

from __future__ import annotations

import ast
import re
from typing import Any

from rlawrap.splice.at import BY_PATH


def moved_advice(text: str, path: str, several: bool) -> str:
    """A message about the module at a path, with its calls in backquotes as calls of the whole.

    >>> moved_advice("Try `rlawrap.apply(model, at='net')`.", "a", False)
    "Try `rlawrap.apply(model, at='a.net')`."
    >>> moved_advice("Pass `example_input=x`.", "a", True)
    "Pass `example_input={'a': x}`."
    """
    return re.sub("`([^`]+)`", lambda code: f"`{_moved(code[1], path, several)}`", text)


def _moved(code: str, path: str, several: bool) -> str:
    mover = _Mover(path, several)
    try:
        call = ast.parse(f"dict({code})", mode="eval").body
    except SyntaxError:
        call = ast.Constant(None)
    if isinstance(call, ast.Call) and call.keywords and not call.args:
        if not several:
            return code
        for given in call.keywords:
            if given.arg in BY_PATH and ast.unparse(given.value) != "None":
                given.value = ast.Dict([ast.Constant(path)], [given.value])
        return ast.unparse(call)[len("dict(") : -1]
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return code
    moved = mover.visit(tree)
    return ast.unparse(ast.fix_missing_locations(moved)) if mover.moved else code


class _Mover(ast.NodeTransformer):
    """Lets `rlawrap.apply(model, ...)` and `inspect` name the module at a path."""

    def __init__(self, path: str, several: bool) -> None:
        self.path, self.several, self.moved = path, several, False

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        first = node.args[0] if node.args else None
        if ast.unparse(node.func) not in ("rlawrap.apply", "rlawrap.inspect"):
            return node
        if not isinstance(first, ast.Name) or first.id != "model":
            return node
        self.moved = True
        given = next((k for k in node.keywords if k.arg == "at"), None)
        if given is None:
            here: Any = [self.path] if self.several else self.path
            node.keywords.append(ast.keyword("at", ast.parse(repr(here), mode="eval").body))
            return node
        for part in ast.walk(given.value):
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                part.value = f"{self.path}.{part.value}"
        return node
