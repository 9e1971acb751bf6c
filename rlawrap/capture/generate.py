"""Graph -> function: the one place where generated code is compiled."""

from __future__ import annotations

import inspect as pyinspect
import linecache
import zlib
from collections.abc import Callable
from typing import Any

from torch import fx


class _Loader:
    """Gives tracebacks the generated lines: `linecache` asks a module's loader for them."""

    def __init__(self, source: str) -> None:
        self.source = source

    def get_source(self, name: str) -> str:
        return self.source


def compile_graph(graph: fx.Graph, name: str) -> Callable[..., Any]:
    """The function `forward(self, …)` that a graph describes; `name` says in tracebacks what it is.

    Modules and attributes are looked up from `self` when it runs.
    """
    code = graph.python_code(root_module="self")
    return compile_source(code.src, code.globals, name)["forward"]


def compile_source(source: str, names: dict[str, Any], name: str) -> dict[str, Any]:
    """What a source text defines, with `names` known to it."""
    # Not in angle brackets: of a file with such a name tracebacks show no lines.
    file = f"rlawrap/{name}-{zlib.crc32(source.encode()):08x}"
    linecache.lazycache(file, {"__name__": file, "__loader__": _Loader(source)})
    namespace = dict(names)
    exec(compile(source, file, "exec"), namespace)
    return namespace


def signature_text(parameters: list[pyinspect.Parameter]) -> str:
    """Parameters as they stand in a `def`; the default of `x` is the name `_x`."""
    parts: list[str] = []
    starred = False
    for p in parameters:
        if p.kind is p.VAR_POSITIONAL or p.kind is p.VAR_KEYWORD:
            parts.append(("*" if p.kind is p.VAR_POSITIONAL else "**") + p.name)
            starred = True
            continue
        if p.kind is p.KEYWORD_ONLY and not starred:
            parts.append("*")
            starred = True
        parts.append(p.name if p.default is p.empty else f"{p.name}=_{p.name}")
    return ", ".join(parts)
