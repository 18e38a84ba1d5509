"""Calls: of built-in functions, and of `def`s, which are expanded where they are called."""

from __future__ import annotations

from collections.abc import Callable

from attncc.errors import Related, did_you_mean
from attncc.grammar import syntax
from attncc.grammar.builtins import BUILTIN_FUNCTIONS, FUNCTIONS
from attncc.grammar.constants import ConstantError, evaluate
from attncc.grammar.definitions import Definition
from attncc.grammar.elements import Elements
from attncc.grammar.operands import Operands
from attncc.grammar.places import Place
from attncc.grammar.wording import function_hint
from attncc.grammar.world import Binding, Failed, Frame, Tensor, Value
from attncc.ir.expr import Expr
from attncc.ir.spec import Require
from attncc.source import Span


class Calls:
    """Checks calls; `value` checks the expressions inside them."""

    def __init__(
        self, operands: Operands, elements: Elements, value: Callable[[syntax.Expression, Frame], Expr | None]
    ) -> None:
        self.operands = operands
        self.elements = elements
        self.world = operands.world
        self._value = value
        self._error = operands.error

    def call(self, node: syntax.Call, frame: Frame) -> Expr | None:
        """The value of a call."""
        if not isinstance(node.function, syntax.Name):
            self._error("only a function can be called", node.function.span, frame, hint=_method_hint(node, frame))
            return None
        self._keywords_last(node, frame)
        name = node.function.text
        match name:
            case "len":
                return self.elements.len(node, frame)
            case "on_grid":
                return self.elements.on_grid(node, frame)
            case "random":
                self._reserved(node, "random numbers in a spec are", frame)
            case "dot":
                self._reserved(node, "a second product of queries and keys is", frame)
            case _ if name in FUNCTIONS:
                return self._built_in_call(node, name, frame)
            case _ if (definition := frame.definitions.find(name)) is not None:
                return self._expand(node, definition, frame)
            case _ if frame.definitions.broken & {name, "*"}:
                pass
            case _ if name in frame.names or self.elements.built_in(node.function) is not None:
                self._error(f"'{name}' is not a function", node.function.span, frame, hint=_index_hint(node, frame))
            case _:
                known = (*BUILTIN_FUNCTIONS, *frame.definitions.names())
                hint = function_hint(name, known)
                self._error(f"there is no function '{name}'", node.function.span, frame, hint=hint)
        for argument in node.arguments:
            self._argument(argument, frame)
        return None

    def require(self, statement: syntax.Require, condition: Expr | None, span: Span, frame: Frame) -> None:
        """Adds a requirement, its condition already typed. One that holds for literal reasons is dropped."""
        if condition is None or not self.operands.wants_bool(statement.condition, condition, "'require'", frame):
            return
        try:
            holds = evaluate(condition, {})
        except ConstantError:
            holds = None
        if holds is False:
            self._error(f"this requirement never holds: {statement.message.text}", statement.condition.span, frame)
        required = Require(condition, statement.message.text, span)
        if holds is None and required not in self.world.requires:
            self.world.requires.append(required)

    def _keywords_last(self, node: syntax.Call, frame: Frame) -> None:
        """As in Python: what is given by place stands before what is given by name."""
        named = next((i for i, a in enumerate(node.arguments) if a.keyword is not None), len(node.arguments))
        for argument in node.arguments[named:]:
            if argument.keyword is None:
                related = (Related(node.arguments[named].span, "given by name"),)
                message = "an argument given by place stands after one given by name"
                self._error(message, argument.span, frame, related=related, hint="name it too, or put it first")

    def _reserved(self, node: syntax.Call, what: str, frame: Frame) -> None:
        self._error(f"{what} reserved for a later version of the language", node.span, frame)

    def _built_in_call(self, node: syntax.Call, name: str, frame: Frame) -> Expr | None:
        formals = FUNCTIONS[name]
        slots: dict[int, syntax.Expression] = {}
        wrong = False
        for position, argument in enumerate(node.arguments):
            slot = position
            if argument.keyword is not None:
                word = argument.keyword.text
                if word not in formals:
                    hint = did_you_mean(word, formals) or f"write `{name}({', '.join(_shown_formals(formals))})`"
                    self._error(f"'{name}' has no argument '{word}'", argument.keyword.span, frame, hint=hint)
                    wrong = True
                    continue
                slot = formals.index(word)
            if slot in slots:
                self._error(f"argument '{formals[slot]}' is given twice", argument.span, frame)
                wrong = True
            slots[slot] = argument.value
        variadic = formals == ("*",)
        count_fits = len(slots) >= 2 if variadic else set(slots) == set(range(len(formals)))
        if not wrong and not count_fits:
            wanted = "two or more arguments" if variadic else f"{len(formals)} argument{'s' * (len(formals) > 1)}"
            hint = f"write `{name}({', '.join(_shown_formals(formals))})`"
            self._error(
                f"'{name}' takes {wanted}, and {len(slots)} {'is' if len(slots) == 1 else 'are'} given",
                node.span,
                frame,
                hint=hint,
            )
            wrong = True
        nodes = [slots[i] for i in sorted(slots)]
        values = [self._value(n, frame) for n in nodes]
        operands = [v for v in values if v is not None]
        if wrong or len(operands) != len(values):
            return None
        pairs = list(zip(nodes, operands, strict=True))
        if not self.operands.all_want(self.operands.wants_number, pairs, f"'{name}'", frame):
            return None
        if name in ("floor", "ceil"):
            self.operands.warn_transcendental(nodes[0], operands[0], "rounding to an int", frame)
        result: Expr | None = operands[0]
        if not variadic:
            return self.operands.build(name, operands, nodes, node.span, frame)
        for operand, written in zip(operands[1:], nodes[1:], strict=True):
            if result is not None:
                result = self.operands.build(name, [result, operand], [node, written], node.span, frame)
        return result

    def _expand(self, node: syntax.Call, definition: Definition, frame: Frame) -> Expr | None:
        formals = definition.syntax.formals
        by_name = {f.name.text: f for f in formals}
        given: dict[str, Binding] = {}
        wrong = definition.broken
        related = () if definition.from_prelude else (Related(definition.syntax.name.span, "defined here"),)
        for position, argument in enumerate(node.arguments):
            binding = self._argument(argument, frame)
            if argument.keyword is not None:
                name, span = argument.keyword.text, argument.keyword.span
                if name not in by_name:
                    hint = did_you_mean(name, by_name) or f"write `{definition.signature}`"
                    self._error(
                        f"'{definition.name}' has no argument '{name}'", span, frame, related=related, hint=hint
                    )
                    wrong = True
                    continue
            elif position < len(formals):
                name = formals[position].name.text
            else:
                takes = f"{len(formals) or 'no'} argument{'s' * (len(formals) != 1)}"
                message = f"'{definition.name}' takes {takes}, and {len(node.arguments)} are given"
                if len(node.arguments) == 1:
                    message = message.replace("are given", "is given")
                self._error(message, argument.span, frame, related=related, hint=f"write `{definition.signature}`")
                wrong = True
                break
            if name in given:
                self._error(f"argument '{name}' is given twice", argument.span, frame)
                wrong = True
            given[name] = binding
        missing = [f.name.text for f in formals if f.default is None and f.name.text not in given]
        if missing and not wrong:
            names = " and ".join(f"'{m}'" for m in missing)
            hint = f"write `{definition.signature}`"
            self._error(f"'{definition.name}' wants {names}", node.span, frame, related=related, hint=hint)
            wrong = True
        if wrong or any(isinstance(b, Failed) for b in given.values()):
            return None
        return self._inline(node, definition, given, frame)

    def _inline(
        self, node: syntax.Call, definition: Definition, given: dict[str, Binding], caller: Frame
    ) -> Expr | None:
        names: dict[str, Binding] = {}
        frame = Frame(names, definition.scope, caller.place, caller.level, definition, node.span, caller)
        for formal in definition.syntax.formals:
            binding = given.get(formal.name.text)
            if binding is None:
                assert formal.default is not None, "missing arguments are reported before"
                binding = self._argument(syntax.Argument(formal.span, None, formal.default), frame)
                if isinstance(binding, Failed):
                    return None
            names[formal.name.text] = binding
        for require in definition.syntax.requires:
            place = Place(f"a requirement of '{definition.name}'", positions=frozenset(), loads=False)
            scalar = Frame(names, definition.scope, place, caller.level, definition, node.span, caller)
            self.require(require, self._value(require.condition, scalar), node.span, scalar)
        return self._value(definition.syntax.body, frame)

    def _argument(self, argument: syntax.Argument, frame: Frame) -> Binding:
        """An argument's value; a tensor may be passed whole, by its name."""
        if isinstance(argument.value, syntax.Name):
            binding = frame.names.get(argument.value.text)
            if isinstance(binding, Tensor):
                if frame.definition is None:
                    self.world.used.add(argument.value.text)
                return binding
        value = self._value(argument.value, frame)
        return Failed(argument.span) if value is None else Value(value, "argument", argument.span)


def _shown_formals(formals: tuple[str, ...]) -> tuple[str, ...]:
    return ("x", "y") if formals == ("*",) else formals


def _method_hint(node: syntax.Call, frame: Frame) -> str | None:
    match node.function:
        case syntax.Attribute(base=base, name=name):
            if name.text not in BUILTIN_FUNCTIONS and frame.definitions.find(name.text) is None:
                return "there are no methods or modules: functions are called by their names alone"
            receiver = [base.text] if isinstance(base, syntax.Name) and base.text not in _MODULES else []
            written = ", ".join((*receiver, *(a.span.text for a in node.arguments)))
            return f"write `{name.text}({written})`"
        case _:
            return None


_MODULES = ("math", "torch", "np", "numpy")


def _index_hint(node: syntax.Call, frame: Frame) -> str | None:
    name = node.function
    if isinstance(name, syntax.Name) and isinstance(frame.names.get(name.text), Tensor) and node.arguments:
        return f"an element is read with brackets: `{name.text}[{', '.join(a.span.text for a in node.arguments)}]`"
    return None
