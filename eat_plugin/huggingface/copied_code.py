"""The code of a folder: files of this package, copied flat, with their relative imports rewritten.

transformers loads the files next to the one that ``config.json`` names by their relative imports,
without folders. A module ``models.encoder`` becomes ``models_encoder.py``; those of this room keep
their names.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
ROOM = Path(__file__).resolve().parent.name
# The files that config.json and preprocessor_config.json name. They import the rest.
NAMED = ("configuration_eat", "modeling_eat", "feature_extraction_eat")

Module = tuple[str, ...]  # the parts of its name in the package


def copy_code() -> dict[str, str]:
    """Return the code of a folder by the names of its files."""
    files = _copy([(ROOM, name) for name in NAMED])
    for name in NAMED:
        needed = [other for other in _copy([(ROOM, name)]) if other != name]
        files[name] += _name_files(needed)
    return {f"{name}.py": text for name, text in sorted(files.items())}


def _copy(waiting: list[Module]) -> dict[str, str]:
    """Rewrite modules and all that they import; return the code by flat names."""
    files: dict[str, str] = {}
    while waiting:
        module = waiting.pop()
        name = _flat_name(module)
        if name not in files:
            files[name], imported = _rewrite(module)
            waiting += imported
    return files


def _name_files(names: list[str]) -> str:
    """Return code that names files for transformers 4.

    From a local folder it copies those that its own file names, not those that these need.
    """
    lines = [f"    from .{name} import __name__ as _  # noqa: F401\n" for name in sorted(names)]
    return "".join(["\nif False:  # transformers copies the files that are named here\n", *lines])


def _flat_name(module: Module) -> str:
    return "_".join(module[1:] if module[0] == ROOM else module)


def _rewrite(module: Module) -> tuple[str, list[Module]]:
    """Return the code of a module for a flat folder, and the modules that it imports."""
    text = (PACKAGE.joinpath(*module).with_suffix(".py")).read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    tree, imported = ast.parse(text), []
    for node in tree.body:
        if isinstance(node, ast.If) and _is_for_types(node):
            # transformers looks for the files of these imports, too.
            for number in range(node.lineno - 1, node.end_lineno or node.lineno):
                lines[number] = ""
    for node in _relative_imports(tree):
        base = module[: len(module) - node.level]
        found = (*base, *(node.module or "").split("."))
        imported.append(found)
        own = f"from {'.' * node.level}{node.module} import"
        number = node.lineno - 1
        lines[number] = lines[number].replace(own, f"from .{_flat_name(found)} import")
    origin = f"# Copied from the EAT plugin: {'/'.join((PACKAGE.name, *module))}.py\n"
    return origin + "".join(lines), imported


def _is_for_types(node: ast.If) -> bool:
    return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _relative_imports(tree: ast.Module) -> Iterator[ast.ImportFrom]:
    """Yield all relative imports, in functions too, but those for types alone."""
    for statement in tree.body:
        if isinstance(statement, ast.If) and _is_for_types(statement):
            continue
        for node in ast.walk(statement):
            if isinstance(node, ast.ImportFrom) and node.level:
                yield node
