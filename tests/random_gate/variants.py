"""The model with other comparisons: it tells which cases lie at a limit, and whether a fault would be noticed."""

import ast
import importlib.util
from pathlib import Path

from tests.random_gate import model

__all__ = ["comparisons", "flipped", "tightened"]

SOURCE = Path(model.__file__)

#: An order with and without equality.
_FLIPPED = {ast.LtE: ast.Lt, ast.Lt: ast.LtE, ast.GtE: ast.Gt, ast.Gt: ast.GtE}


def _ordered(tree):
    return [node for function in tree.body if isinstance(function, ast.FunctionDef) for node in ast.walk(function)
            if isinstance(node, ast.Compare) and type(node.ops[0]) in _FLIPPED]


def _compiled(tree):
    spec = importlib.util.spec_from_file_location(model.__name__, SOURCE)
    module = importlib.util.module_from_spec(spec)
    exec(compile(ast.fix_missing_locations(tree), SOURCE, "exec"), vars(module))
    return module


def comparisons():
    """Every order between two values in the model: (function, source) each."""
    tree = ast.parse(SOURCE.read_text())
    return [(function.name, ast.unparse(node)) for function in tree.body if isinstance(function, ast.FunctionDef)
            for node in _ordered(ast.Module([function], []))]


def flipped(number):
    """The model with equality added to, or taken from, the comparison of this number in :func:`comparisons`."""
    tree = ast.parse(SOURCE.read_text())
    node = _ordered(tree)[number]
    node.ops = [_FLIPPED[type(node.ops[0])]()]
    return _compiled(tree)


def tightened():
    """The model with every comparison narrower by one: what passes a gate here is not at its limit."""
    tree = ast.parse(SOURCE.read_text())
    for node in _ordered(tree):
        (order,), (right,) = node.ops, node.comparators
        if isinstance(order, ast.LtE | ast.GtE):
            node.ops = [_FLIPPED[type(order)]()]
        else:
            narrower = ast.Sub() if isinstance(order, ast.Lt) else ast.Add()
            node.comparators = [ast.BinOp(right, narrower, ast.Constant(1))]
    return _compiled(tree)
