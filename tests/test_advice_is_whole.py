"""Every refusal of `inspect` and `apply` that tells a call has a row in `test_advice`.

Read from the source: a call stands in backquotes, in the text of a `raise` or in what makes it.
"""

from __future__ import annotations

import ast
import re
import traceback
from collections.abc import Iterator
from pathlib import Path

import rlawrap
from tests.test_advice import ROWS, refusal

ROOT = Path(rlawrap.__file__).parent
ROOMS = ("capture", "flow", "discover", "design", "splice", "cells")
#: What a rewritten network refuses when it runs, is changed or is asked for something.
LATER = tuple(
    f"splice/{name}.py"
    for name in (
        "backbone", "classes", "classifier", "containers", "following", "guards", "hidden",
        "methods", "resized",
    )
)  # fmt: skip
#: Of other files, and tested there: the files of checkpoints.
ELSEWHERE = ("checkpoints.py", "identity.py")
FILES = [
    path
    for path in sorted(ROOT.rglob("*.py"))
    if path.parent == ROOT or path.relative_to(ROOT).parts[0] in ROOMS
    if str(path.relative_to(ROOT)) not in (*LATER, *ELSEWHERE, "cli.py", "conversion.py")
]
TREES = {path: ast.parse(path.read_text()) for path in FILES}
FUNCTIONS = {
    node.name: node
    for tree in TREES.values()
    for node in ast.walk(tree)
    if isinstance(node, ast.FunctionDef)
}
A_CALL = re.compile(r"rlawrap\.\w+\(|\b[Pp]ass (?!it\b)[a-z_]+=|leaf_modules=\[")


def strings(node: ast.AST) -> Iterator[str]:
    """The texts in a piece of code, without docstrings."""
    for part in ast.walk(node):
        lone = isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant)
        if lone:
            part.value.value = ""
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value


def text_of(raised: ast.AST, function: ast.AST, depth: int = 2) -> str:
    """All that may stand in a message: its own texts, those of its names and of its makers."""
    texts = list(strings(raised))
    used = {n.id for n in ast.walk(raised) if isinstance(n, ast.Name)}
    for part in ast.walk(function):
        targets = getattr(part, "targets", [getattr(part, "target", None)])
        named = {t.id for t in targets if isinstance(t, ast.Name)}
        if isinstance(part, (ast.Assign, ast.AugAssign)) and named & used and depth:
            texts.append(text_of(part.value, function, 0))
    called = {n.func.id for n in ast.walk(raised) if isinstance(n, ast.Call)
              and isinstance(n.func, ast.Name)}  # fmt: skip
    for name in called & set(FUNCTIONS) if depth else ():
        texts.append(text_of(FUNCTIONS[name], FUNCTIONS[name], depth - 1))
    return " ".join(texts)


def refusals(tree: ast.AST) -> Iterator[tuple[ast.Raise, str]]:
    """Every `raise` of a file with its text."""
    inner = (ast.FunctionDef, ast.Lambda)
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            nested = {id(n) for f in ast.walk(function) if f is not function
                      and isinstance(f, inner) for n in ast.walk(f)}  # fmt: skip
            for node in ast.walk(function):
                if isinstance(node, ast.Raise) and node.exc and id(node) not in nested:
                    yield node, text_of(node.exc, function)


def lines_of(error: BaseException | None) -> Iterator[tuple[str, int]]:
    """The lines that an error, and those behind it, went through."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:  # one raised anew from itself is a circle
        seen.append(error)
        for frame in traceback.extract_tb(error.__traceback__):
            yield frame.filename, frame.lineno or 0
        error = error.__cause__ or error.__context__


def test_every_refusal_that_tells_a_call_has_a_row() -> None:
    reached = {line for name in ROWS for line in lines_of(refusal(name))}
    missing, telling = [], 0
    for path, tree in TREES.items():
        for node, text in refusals(tree):
            telling += "`" in text
            last = node.end_lineno or node.lineno
            if "`" in text and not any(
                (str(path), n) in reached for n in range(node.lineno, last + 1)
            ):
                missing.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not missing, missing
    assert telling > 15


def test_no_call_stands_outside_of_backquotes() -> None:
    for path, tree in TREES.items():
        for node, _ in refusals(tree):
            text = " ".join(strings(node))
            assert not A_CALL.search(re.sub(r"`[^`]*`", "", text)), (path, text)
