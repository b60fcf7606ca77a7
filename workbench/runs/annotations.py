"""What the text of a notebook allows a value to be: read with `ast`, never executed.

A `Kind` is what an annotation or a default allows; a `Limit` is a comparison in a comment.
"""

from __future__ import annotations

import ast
import io
import math
import operator
import re
import tokenize
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from workbench.errors import RequestError
from workbench.types import JSON

__all__ = ["FAULTS", "Kind", "Limit", "literal", "notes_of", "statements", "typed"]

FAULTS = (  # what reading a text raises, or a kind that is given a value of another
    *(ValueError, TypeError, SyntaxError, LookupError),
    *(ArithmeticError, MemoryError, RecursionError),
)
_MAKERS: Mapping[str, Callable[..., Any]] = {
    **{made.__name__: made for made in (float, complex, dict, list, tuple, set, frozenset)},
    **dict.fromkeys(("Path", "pathlib.Path", "__import__('pathlib').Path"), Path),
}
_A_PATH = re.compile(r"(pathlib\.)?Path(\.home|\.cwd)?")
_MODULES = re.compile(r"(typing|typing_extensions|t|pathlib|builtins)\.(?=\w+$)")
_Step = type[ast.cmpop]
_STEPS: Mapping[_Step, tuple[Callable[[Any, Any], bool], str]] = {  # and in JSON Schema
    ast.Lt: (operator.lt, "exclusiveMaximum"),
    ast.LtE: (operator.le, "maximum"),
    ast.Gt: (operator.gt, "exclusiveMinimum"),
    ast.GtE: (operator.ge, "minimum"),
    ast.Eq: (operator.eq, "enum"),
    ast.NotEq: (operator.ne, "not"),
    ast.In: (lambda value, others: value in others, "enum"),
    ast.NotIn: (lambda value, others: value not in others, "not"),
}
_MIRRORED: Mapping[_Step, _Step] = {
    **{ast.Lt: ast.Gt, ast.LtE: ast.GtE, ast.Gt: ast.Lt, ast.GtE: ast.LtE},
    **{ast.Eq: ast.Eq, ast.NotEq: ast.NotEq},
}
_SIDE = r"""(?:-?\.?\d(?:[\w.+-]*\w)?|"[^"]*"|'[^']*'|\([^()]*\)|\[[^]]*\]|\{[^}]*\}|\bNAME\b)"""
_CHAIN = rf"(?<![\w.-]){_SIDE}(?:\s*(?:[<>]=?|[=!]=|\bnot\s+in\b|\bin\b)\s*{_SIDE})+"
_ENDS = r"(?=\s*(?:$|[;,()]|\.(?:\s|$)|and\b))"
_MAGIC = re.compile(r"^[ \t]*(\w+\s*=\s*)?[%!].*$", re.MULTILINE)
_DEPENDS = re.compile(r"([<>=!]|\b(or|not|in))\s*$|\b(if|when|unless|while|until)\b[^;,()]*$")
_LEFT_OVER = re.compile(r"\s*\(\s*\)|^\s*and\b|[\s;,:]*(\b(must be|with|and)\b)?\s*(?=[;,.)]|$)")


@dataclass(frozen=True)
class Kind:
    """The values that a type admits.

    Args:
        accept: returns a value in this type, or raises one of FAULTS.
        schema: the JSON Schema of the values, as JSON spells them.
        choices: the values that `Literal` lists.
    """

    accept: Callable[[Any], Any]
    schema: JSON
    choices: tuple[Any, ...] = ()

    def takes(self, value: Any) -> bool:
        """Return whether the value is, or can become, one of them."""
        try:
            self.accept(value)
        except FAULTS:
            return False
        return True


@dataclass(frozen=True)
class Limit:
    """The comparisons that the values of a parameter must satisfy; none by default.

    Args:
        text: as they are written.
        steps: what a value is compared with, one by one, and how.
    """

    text: str = ""
    steps: tuple[tuple[_Step, Any], ...] = ()

    def holds(self, value: Any) -> bool:
        """Return whether a value satisfies it; None does, and a word where it is of numbers."""
        try:
            return value is None or all(_STEPS[step][0](value, other) for step, other in self.steps)
        except TypeError:
            return isinstance(value, str)

    def schema(self) -> JSON:
        """Return what JSON Schema can say of it; of two on one word, the first."""
        found: JSON = {}
        for step, other in self.steps:
            word = _STEPS[step][1]
            values = list(other) if step in (ast.In, ast.NotIn) else [other]
            if word == "enum":
                found.setdefault("enum", [*values, None])
            elif word == "not":
                found.setdefault("not", {"enum": values})
            elif isinstance(other, (int, float)) and math.isfinite(other):
                found.setdefault(word, other)
        return found


def statements(source: str) -> tuple[list[ast.stmt], str]:
    """Return the statements of a cell, and the cell without its magics if it has any.

    Raises:
        RequestError: it is not Python.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the kernel gives them
        with suppress(*FAULTS):
            return ast.parse(source).body, source
        try:
            source = _MAGIC.sub("", source)  # only now: in a longer text it may be no magic
            return ast.parse(source).body, source
        except FAULTS as error:
            reason = getattr(error, "msg", error)
            line = getattr(error, "lineno", 1)
    raise RequestError(f"the cell tagged 'parameters' is not Python: {reason} in its line {line}")


def typed(annotation: str | None, default: ast.expr) -> tuple[str, Kind]:
    """Return the type of a parameter as it is written, or as its default has it, and its kind.

    An annotation that is not understood allows anything, and says so.

    >>> typed("tuple[int, ...] | None", ast.Constant(None))[1].accept([1, 2])
    (1, 2)
    """
    if annotation is None:
        name = _inferred(default)
        return name, _PLAIN[name]
    annotation = " ".join(annotation.split())
    try:
        node = _parsed(annotation)
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            annotation, node = node.value, _parsed(node.value)
        return annotation, _kind(node)
    except FAULTS:
        return f"{annotation} (any literal)", _PLAIN["Any"]


def notes_of(node: ast.stmt, source: str, name: str) -> tuple[Limit, str | None]:
    """Return the limit that a statement's comment sets to `name`, and the rest of the comment.

    No limit is a comparison that depends ("if lr < 0"), or that a word follows.

    >>> text = "lr = 0.1  # peak learning rate; 0 < lr <= 1"
    >>> limit, rest = notes_of(ast.parse(text).body[0], text, "lr")
    >>> rest, limit.text, limit.holds(0.5), limit.holds(2)
    ('peak learning rate', '0 < lr <= 1', True, False)
    """
    comment = _comment(node, source)
    texts: list[str] = []
    steps: list[tuple[_Step, Any]] = []

    def take(match: re.Match[str]) -> str:
        with suppress(*FAULTS):
            if not _DEPENDS.search(comment[: match.start()]):
                steps.extend(_steps(match[0]))
                texts.append(match[0])
                return ""
        return match[0]

    rest = re.sub(_CHAIN.replace("NAME", name) + _ENDS, take, comment)
    rest = _LEFT_OVER.sub("", rest).strip(" ;,-–") if texts else rest
    return Limit(" and ".join(texts), tuple(steps)), rest or None


def literal(source: str | ast.AST | None) -> Any:
    """Return the value of literals and of `float("inf")`, `set()`, `dict(a=1)` or `Path("x")`.

    Of anything more, raise one of FAULTS.
    """
    node = _parsed(source) if isinstance(source, str) else source
    match node:
        case ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items):
            return _MAKERS[type(node).__name__.lower()](map(literal, items))
        case ast.Dict(keys=keys, values=values):
            return dict(zip(map(literal, keys), map(literal, values), strict=True))
        case ast.UnaryOp(op=ast.USub(), operand=ast.Call(func=ast.Name("float")) as number):
            return -literal(number)
        case ast.Call(func=func, args=args, keywords=words) if ast.unparse(func) in _MAKERS:
            named = {word.arg or "": literal(word.value) for word in words}
            return _MAKERS[ast.unparse(func)](*map(literal, args), **named)
    return ast.literal_eval(node)  # type: ignore[arg-type]  # it refuses what is no expression


def _parsed(text: str) -> ast.expr:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what looks odd in it
        return ast.parse(text.strip(), mode="eval").body


def _comment(node: ast.stmt, source: str) -> str:
    """Return the comment at the end of a statement's last line, else those right above it."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    notes = {token.start[0]: token for token in tokens if token.type == tokenize.COMMENT}
    first, last = node.lineno, node.end_lineno or node.lineno
    if last in notes:
        return _note(notes[last])
    while first - 1 in notes and notes[first - 1].line.lstrip().startswith("#"):
        first -= 1
    return " ".join(_note(notes[line]) for line in range(first, node.lineno))


def _note(comment: tokenize.TokenInfo) -> str:
    return comment.string.lstrip("#: ").rstrip()


def _inferred(default: ast.expr) -> str:
    """Return the name of a default's type, as far as it can be told without executing it."""
    with suppress(*FAULTS):
        name = type(literal(default)).__name__.removeprefix("Posix").removeprefix("Windows")
        return name if name in _PLAIN else "Any"
    while isinstance(default, ast.BinOp) and isinstance(default.op, ast.Div):
        default = default.left  # of Path("data") / name
    is_call = isinstance(default, ast.Call) and _A_PATH.fullmatch(ast.unparse(default.func))
    return "Path" if is_call else "Any"


def _steps(text: str) -> list[tuple[_Step, Any]]:
    """Return the steps of a comparison of one name with literals, or raise one of FAULTS."""
    node, steps = _parsed(text), []
    if not isinstance(node, ast.Compare):
        raise ValueError
    sides = [node.left, *node.comparators]
    for left, op, right in zip(sides, node.ops, sides[1:], strict=False):
        if isinstance(left, ast.Name):
            steps.append((type(op), literal(right)))
        elif isinstance(right, ast.Name):
            steps.append((_MIRRORED[type(op)], literal(left)))
        else:
            raise ValueError
    return steps


def _native(value: Any) -> Any:
    """Return a value with Python's scalars in place of NumPy's."""
    made = type(value)
    if made.__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        return value.item()
    if made in (list, tuple, set, frozenset):
        return made(map(_native, value))
    return {_native(k): _native(v) for k, v in value.items()} if made is dict else value


def _scalar(made: type, name: str | None, *narrower: type) -> Kind:
    def accept(value: Any) -> Any:
        value = _native(value)
        if type(value) not in (made, *narrower):
            raise ValueError
        return made(value) if type(value) in narrower else value

    return Kind(accept, {"type": name} if name else {"not": {}})


def _choice(*values: Any) -> Kind:
    def accept(value: Any) -> Any:
        value = _native(value)
        return values[[(type(x), x) for x in values].index((type(value), value))]

    return Kind(accept, {"enum": [x for x in values if type(x) is not bytes]}, values)


def _either(*kinds: Kind) -> Kind:
    def accept(value: Any) -> Any:
        """Return the value as it is where one kind takes it so, else as the first makes it."""
        taken = []
        for kind in kinds:
            with suppress(*FAULTS):
                taken.append(kind.accept(value))
        exact = [x for x in taken if x is value or (type(x), repr(x)) == (type(value), repr(value))]
        return [*exact, *taken][0]

    choices = tuple(choice for kind in kinds for choice in kind.choices)
    return Kind(accept, {"anyOf": [kind.schema for kind in kinds]}, choices)


def _items(made: Callable[[Any], Any], item: Kind) -> Kind:
    """Return the kind of so many items as there are, in a list, tuple, set or frozenset."""
    taken = (list, tuple, set, frozenset) if made in (set, frozenset) else (list, tuple)

    def accept(value: Any) -> Any:
        if not isinstance(value, taken):
            raise ValueError
        return made(map(item.accept, value))

    return Kind(accept, {"type": "array", "items": item.schema})


def _row(*items: Kind) -> Kind:
    """Return the kind of a tuple of just these items."""

    def accept(value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            raise ValueError
        return tuple(kind.accept(item) for kind, item in zip(items, value, strict=True))

    each = {"prefixItems": [kind.schema for kind in items]} if items else {}
    return Kind(accept, {"type": "array", **each, "minItems": len(items), "maxItems": len(items)})


def _entries(key: Kind, value: Kind) -> Kind:
    def accept(given: Any) -> Any:
        if not isinstance(given, dict):
            raise ValueError
        return {key.accept(k): value.accept(v) for k, v in given.items()}

    inner = {"propertyNames": key.schema, "additionalProperties": value.schema}
    return Kind(accept, {"type": "object", **inner})


def _path(value: Any) -> Path:
    if not isinstance(value, (str, PurePath)):
        raise ValueError
    return Path(value)


_PLAIN = {
    **{"Any": Kind(_native, {}), "Path": Kind(_path, {"type": "string"})},
    **{"int": _scalar(int, "integer"), "float": _scalar(float, "number", int)},
    **{"str": _scalar(str, "string"), "bool": _scalar(bool, "boolean")},
    **{"complex": _scalar(complex, "number", int, float), "bytes": _scalar(bytes, None)},
    "None": _scalar(type(None), "null"),
}
_PLAIN |= {
    **{n: _items(_MAKERS[n], _PLAIN["Any"]) for n in ("list", "tuple", "set", "frozenset")},
    "dict": _entries(_PLAIN["Any"], _PLAIN["Any"]),
}


def _kind(node: ast.expr) -> Kind:
    """Return the kind that an annotation means, or raise one of FAULTS."""
    match node:
        case ast.Constant(value=str() as text):
            return _kind(_parsed(text))
        case ast.BinOp(op=ast.BitOr(), left=left, right=right):
            return _either(_kind(left), _kind(right))
        case ast.Subscript(value=head, slice=ast.Tuple(elts=parts)):
            return _generic(_name(head), parts)
        case ast.Subscript(value=head, slice=part):
            return _generic(_name(head), [part])
    return _PLAIN[_name(node)]


def _name(node: ast.expr) -> str:
    name = _MODULES.sub("", ast.unparse(node))
    return name.lower() if name in ("List", "Tuple", "Set", "FrozenSet", "Dict") else name


def _generic(name: str, parts: list[ast.expr]) -> Kind:
    if name == "Literal":
        return _choice(*map(literal, parts))
    kinds = [_kind(part) for part in parts if ast.unparse(part) != "..."]
    match name, kinds:
        case "Union", _:
            return _either(*kinds)
        case "Optional", [kind]:
            return _either(kind, _PLAIN["None"])
        case "tuple", _ if len(kinds) == len(parts):
            return _row(*kinds)
        case (("list" | "tuple" | "set" | "frozenset"), [kind]):
            return _items(_MAKERS[name], kind)
        case "dict", [key, value]:
            return _entries(key, value)
    raise LookupError(name)
