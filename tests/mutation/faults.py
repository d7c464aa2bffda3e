"""Single faults in gateware: what could be wrong in a source file, one place at a time, on its syntax tree."""

import ast
import hashlib
from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Shape, Signal
from amaranth.lib import data

__all__ = ["HELPERS", "OPERATORS", "Mutant", "Source"]

#: What each operator does to the source.
OPERATORS = {
    "comparison": "a comparison off by one (`<` for `<=`) or turned round (`>=` for `<`, `!=` for `==`); `less()` too",
    "operand": "an operand of `&` or `|` dropped",
    "connective": "`&` for `|`, `|` for `&`",
    "negation": "a `~` dropped",
    "arithmetic": "`+` for `-`, `-` for `+`, a sign dropped",
    "reduction": "`.any()` for `.all()`, `.all()` for `.any()`",
    "constant": "a constant off by one, also of an index, a slice or a shift",
    "width": "a signal, port or field one bit narrower",
    "reset": "a register or output that starts at 1, or at 0 instead of what it should",
    "choice": "the arms of a `Mux` swapped",
    "condition": "the condition of an `m.If` or `m.Elif` negated, or taken to be met always",
    "assignment": "an assignment dropped",
}
_DROPPED = "(dropped)"
_BEYOND = {ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE),
           ast.GtE: (ast.Gt, ast.Lt), ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,)}
#: Keywords whose values are no logic.
_NO_LOGIC = {"name", "attrs", "domain", "init", "src_loc_at"}
_STRUCTURE = (ast.For, ast.If, ast.While, ast.With)


def narrower(shape):
    """A shape with one bit less. Raises TypeError if it is not that of a plain number or has no bit to spare."""
    plain = Shape.cast(shape)
    if isinstance(shape, data.Layout) or (isinstance(shape, type) and issubclass(shape, data.Struct)):
        raise TypeError(f"{shape!r} is not a number")
    if plain.width < 2:
        raise TypeError(f"{shape!r} has no bit to spare")
    return Shape(plain.width - 1, plain.signed)


def started_at_one(signal):
    """A signal like another one, in its place, with a reset of 1."""
    return Signal.like(signal, name=signal.name, init=1)


#: What a mutated module may call.
HELPERS = {"narrower": narrower, "started_at_one": started_at_one}


@dataclass(frozen=True)
class Mutant:
    """One fault.

    Attributes
    ----------
    id : str
        The same as long as the function that it is in keeps its name and the source text its words.
    file : str
        Below the root. ``line``, ``column`` : where, from 1 and from 0.
    operator : str
        One of :data:`OPERATORS`.
    before, after : str
        The statement, or the element of it, that is wrong: on one line, without comments.
    """

    id: str
    file: str
    line: int
    column: int
    operator: str
    before: str
    after: str


@dataclass(frozen=True)
class _Slot:
    """Where a node hangs in the tree."""

    parent: ast.AST
    field: str
    index: int | None = None

    def get(self):
        value = getattr(self.parent, self.field)
        return value if self.index is None else value[self.index]

    def set(self, node):
        if self.index is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.index] = node


@dataclass(frozen=True)
class _Scope:
    """Where in the source a visit is: names of functions and classes, the ``unit`` (a slot) that is shown of it,
    ``key`` before it, ``parameters`` of the function; whether it is ``logic`` or declares ports and shapes only."""

    path: tuple[str, ...] = ()
    unit: Any = None
    key: str = ""
    parameters: frozenset = frozenset()
    logic: bool = False

    def but(self, **changes):
        return _Scope(**{**self.__dict__, **changes})


class Source:
    """The faults that a source file can have.

    Parameters
    ----------
    file : str
        Its name below the root. ``text`` : what is in it.

    Attributes
    ----------
    mutants : list of Mutant, in the order of the file.
    """

    def __init__(self, file, text):
        self.file = file
        self.tree = ast.parse(text, file)
        self.mutants, self._changes, self._seen, self._ordinals = [], {}, set(), {}
        #: Local functions that make a signal of the shape that they are given first.
        self._makers = {function.name for function in ast.walk(self.tree) if isinstance(function, ast.FunctionDef)
                        for call in ast.walk(function) if _called(call) == "Signal" and call.args
                        and function.args.args and ast.unparse(call.args[0]) == function.args.args[0].arg}
        for n, statement in enumerate(self.tree.body):
            self._declaration(_Slot(self.tree, "body", n), statement, _Scope())

    def mutated(self, mutant):
        """The tree with the fault of that id in it. Good for one: the tree is changed for ever."""
        slot, replacement = self._changes[mutant]
        slot.set(replacement)
        return ast.fix_missing_locations(self.tree)

    # ---------------------------------------------------------------------- what is visited

    def _declaration(self, slot, node, scope):
        """What stands in a module or a class."""
        match node:
            case ast.ClassDef():
                is_struct = any(ast.unparse(base).endswith("Struct") for base in node.bases)
                inner = scope.but(path=(*scope.path, node.name), logic=False)
                for n, statement in enumerate(node.body):
                    if is_struct and isinstance(statement, ast.AnnAssign):
                        self._narrow(_Slot(statement, "annotation"), inner.but(unit=_Slot(node, "body", n)))
                    else:
                        self._declaration(_Slot(node, "body", n), statement, inner)
            case ast.FunctionDef():
                parameters = {arg.arg for arg in (*node.args.args, *node.args.kwonlyargs)}
                inner = scope.but(path=(*scope.path, node.name), parameters=scope.parameters | parameters,
                                  logic=node.name != "__init__")
                for n, statement in enumerate(node.body):
                    self._statement(_Slot(node, "body", n), statement, inner)
            case ast.Assign() | ast.AnnAssign():
                if _called(node.value) in ("signed", "unsigned"):
                    self._narrow(_Slot(node, "value"), scope.but(unit=slot))
                else:
                    self._expression(_Slot(node, "value"), node.value, scope.but(unit=slot))

    def _statement(self, slot, node, scope):
        """What stands in a function."""
        match node:
            case ast.FunctionDef() | ast.ClassDef():
                self._declaration(slot, node, scope)
            case ast.Assert() | ast.Raise() | ast.Import() | ast.ImportFrom():
                pass
            case ast.Expr(value=ast.Constant()):
                pass
            case ast.AugAssign(target=ast.Attribute(value=ast.Attribute(attr="d"))) if scope.logic:
                self._assignments(slot, node, scope)
            case _ if isinstance(node, _STRUCTURE):
                for field, value in ast.iter_fields(node):
                    for n, child in enumerate(value if isinstance(value, list) else ()):
                        if isinstance(child, ast.stmt):
                            self._statement(_Slot(node, field, n), child, scope)
                        elif isinstance(child, ast.withitem):
                            inner = _Slot(child, "context_expr")
                            self._expression(inner, inner.get(), scope.but(unit=inner))
                    if isinstance(value, ast.expr) and field != "target":
                        inner = _Slot(node, field)
                        self._expression(inner, value, scope.but(unit=inner))
            case _:
                self._children(node, scope.but(unit=slot))

    def _assignments(self, slot, node, scope):
        """``m.d.domain += ...``: the elements one by one."""
        several = isinstance(node.value, (ast.List, ast.Tuple))
        elements = node.value.elts if several else [node.value]
        for n, element in enumerate(elements):
            inner = _Slot(node.value, "elts", n) if several else _Slot(node, "value")
            rest = ast.List([each for each in elements if each is not element], ast.Load())
            self._add("assignment", element, _Slot(node, "value"), rest, scope.but(unit=inner), after=_DROPPED)
            self._expression(inner, element, scope.but(unit=inner))

    def _children(self, node, scope):
        for field, value in ast.iter_fields(node):
            for n, child in enumerate(value) if isinstance(value, list) else ((None, value),):
                if isinstance(child, ast.keyword):
                    if child.arg not in _NO_LOGIC:
                        self._expression(_Slot(child, "value"), child.value, scope)
                elif isinstance(child, ast.comprehension):
                    self._children(child, scope)
                elif isinstance(child, (ast.expr, ast.Slice)):
                    self._expression(_Slot(node, field, n), child, scope)

    def _expression(self, slot, node, scope):
        if isinstance(node, ast.JoinedStr):
            return
        if isinstance(node, ast.Dict) and not scope.logic:      # ports: each is shown by itself
            for n, (key, value) in enumerate(zip(node.keys, node.values, strict=True)):
                self._expression(_Slot(node, "values", n), value,
                                 scope.but(unit=_Slot(node, "values", n), key=f"{ast.unparse(key)}: " if key else ""))
            return
        if scope.logic:
            self._logic(slot, node, scope)
        inner = scope
        if isinstance(node, ast.Call) and self._signal(slot, node, scope):
            # The shape has been dealt with.
            for keyword in node.keywords:
                if keyword.arg not in _NO_LOGIC:
                    self._expression(_Slot(keyword, "value"), keyword.value, inner)
            return
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
            return
        self._children(node, inner)

    # ---------------------------------------------------------------------- faults

    def _logic(self, slot, node, scope):
        def add(operator, replacement):
            self._add(operator, node, slot, replacement, scope)

        match node:
            case ast.Compare(left=left, ops=[op], comparators=right):
                for other in _BEYOND.get(type(op), ()):
                    add("comparison", ast.Compare(left, [other()], right))
            case ast.UnaryOp(op=ast.Invert(), operand=operand):
                add("negation", operand)
                if _called(operand) == "less":
                    add("comparison", ast.Call(operand.func, operand.args[::-1], []))
            case ast.Call(func=ast.Name(id="less"), args=[a, b]):
                if not isinstance(getattr(slot.parent, "op", None), ast.Invert):
                    add("comparison", _not(ast.Call(node.func, [b, a], [])))
                    add("comparison", _not(ast.Call(node.func, [a, b], [])))
            case ast.BinOp(op=(ast.BitAnd() | ast.BitOr()) as op):
                add("operand", node.left)
                add("operand", node.right)
                other = ast.BitOr() if isinstance(op, ast.BitAnd) else ast.BitAnd()
                add("connective", ast.BinOp(node.left, other, node.right))
            case ast.BinOp(op=(ast.Add() | ast.Sub()) as op):
                other = ast.Sub() if isinstance(op, ast.Add) else ast.Add()
                add("arithmetic", ast.BinOp(node.left, other, node.right))
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() as value)):
                add("constant", _constant(1 - value))
                add("constant", _constant(-1 - value))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                add("arithmetic", operand)
            case ast.Constant(value=value) if type(value) is int:
                add("constant", _constant(value + 1))
                if value > 0:
                    add("constant", _constant(value - 1))
            case ast.Call(func=ast.Name(id="Mux"), args=[which, a, b]):
                add("choice", ast.Call(node.func, [which, b, a], []))
            case ast.Call(func=ast.Attribute(attr="any" | "all" as which), args=[]):
                other = ast.Attribute(node.func.value, "all" if which == "any" else "any", ast.Load())
                add("reduction", ast.Call(other, [], []))
            case ast.Call(func=ast.Attribute(attr="If" | "Elif"), args=[condition]):
                if not isinstance(condition, (ast.UnaryOp, ast.Compare)):   # those are turned round anyway
                    add("condition", ast.Call(node.func, [_not(condition)], []))
                add("condition", ast.Call(node.func, [_constant(1)], []))

    def _signal(self, slot, node, scope):
        """Whether the call makes a signal or declares a port: its width and reset."""
        name = _called(node)
        is_like = ast.unparse(node.func) == "Signal.like"
        if not (name in ("Signal", "In", "Out") or (scope.logic and (is_like or name in self._makers))):
            return False
        if is_like:
            shape = ast.keyword("shape", _call("narrower", _call_method(node.args[0], "shape")))
            self._add("width", node, slot, ast.Call(node.func, node.args, [*node.keywords, shape]), scope)
        elif node.args and ast.unparse(node.args[0]) not in scope.parameters:
            self._narrow(_Slot(node, "args", 0), scope)
        elif node.args:     # a function that makes signals is not at fault by itself
            return True
        init = next((keyword for keyword in node.keywords if keyword.arg == "init"), None)
        if name in self._makers:
            self._add("reset", node, slot, _call("started_at_one", node), scope)
        elif init and isinstance(init.value, ast.Constant):
            at = _Slot(init, "value")
            self._add("reset", node, at, _constant(int(not init.value.value)), scope)
        elif not init and name != "In":
            one = ast.keyword("init", _constant(1))
            self._add("reset", node, slot, ast.Call(node.func, node.args, [*node.keywords, one]), scope)
        return True

    def _narrow(self, slot, scope):
        shape = slot.get()
        if isinstance(shape, ast.Constant):
            if shape.value > 1:
                self._add("width", shape, slot, _constant(shape.value - 1), scope)
        else:
            self._add("width", shape, slot, _call("narrower", shape), scope)

    def _add(self, operator, node, slot, replacement, scope, after=None):
        """A fault: ``replacement`` in ``slot``. The same text twice in a place is one fault."""
        original, where = slot.get(), scope.unit.get()
        before = scope.key + ast.unparse(where)
        if after is None:
            slot.set(replacement)
            after = scope.key + ast.unparse(scope.unit.get())
            slot.set(original)
        if (id(where), after) in self._seen:
            return
        self._seen.add((id(where), after))
        path = (self.file, ".".join(scope.path), operator, before, after)
        ordinal = self._ordinals[path] = self._ordinals.get(path, -1) + 1
        name = hashlib.sha256("\0".join((*path, str(ordinal))).encode()).hexdigest()[:8]
        stem = self.file.rpartition("/")[2].removesuffix(".py")
        mutant = Mutant(f"{stem}-{operator}-{name}", self.file, node.lineno, node.col_offset, operator, before, after)
        self.mutants.append(mutant)
        self._changes[mutant.id] = slot, replacement


def _called(node):
    """Name of the function that is called, if it is a plain one."""
    return node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else None


def _call(name, *args):
    return ast.Call(ast.Name(name, ast.Load()), list(args), [])


def _call_method(value, name):
    return ast.Call(ast.Attribute(value, name, ast.Load()), [], [])


def _not(node):
    return ast.UnaryOp(ast.Invert(), node)


def _constant(value):
    return ast.Constant(value) if value >= 0 else ast.UnaryOp(ast.USub(), ast.Constant(-value))
