"""Counts lines of code: all but blank lines, comments and docstrings."""

import ast
import io
import tokenize
from pathlib import Path

BETWEEN = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def code_lines(path: Path) -> int:
    """Of a file, or of all Python files below a folder."""
    return sum(map(code_lines, sorted(path.rglob("*.py")))) if path.is_dir() else len(_numbers(path.read_text("utf-8")))


def _numbers(source: str) -> set[int]:
    docstrings = {
        number
        for node in ast.walk(ast.parse(source))
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node)
        for number in range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)
    }
    code = [token for token in tokenize.generate_tokens(io.StringIO(source).readline) if token.type not in BETWEEN]
    return {number for token in code for number in range(token.start[0], token.end[0] + 1)} - docstrings
