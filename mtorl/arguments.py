"""Command lines: jsonargparse with the manners that a researcher with a deadline expects."""

import difflib
import importlib
import inspect
import itertools
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, get_args

from jsonargparse import ArgumentError, ArgumentParser, Namespace, set_dumper

from mtorl import InputError
from mtorl.documents import dump_yaml
from mtorl.words import LISTS, respelled

HANDED_OVER = ("spec", "inputs", "code", "features", "actions", "tasks")
"""Parameters of agents, networks and heads that are no options."""


class Described(Exception):  # noqa: N818 (it is an answer)
    """Stands for running a command, where only what it takes is asked for; see `describing`.

    Args:
        parser: Of the command, complete.
        kinds: Names that it takes as its first word, each with options of its own.
    """

    def __init__(self, parser: ArgumentParser | None = None, kinds: Sequence[str] = ()) -> None:
        super().__init__()
        self.parser, self.kinds = parser, tuple(kinds)


_only_described: ContextVar[bool] = ContextVar("only_described", default=False)


@contextmanager
def describing() -> Iterator[None]:
    """Within, a command raises `Described` where it would read its arguments."""
    token = _only_described.set(True)
    try:
        yield
    finally:
        _only_described.reset(token)


def describe_instead(parser: ArgumentParser | None = None, kinds: Sequence[str] = ()) -> None:
    """Raises `Described` within `describing`; elsewhere nothing happens."""
    if _only_described.get():
        raise Described(parser, kinds)


class Parser(ArgumentParser):
    """A parser whose errors are one `InputError` with a remedy instead of a page of usage.

    * Options beat configuration files, wherever they stand.
    * A chosen class starts from its own defaults. jsonargparse alone fills the default class up first and hands
      values of the same names on to the chosen one.
    * Options that are lists take words.
    * Options that are true or false are true where they stand alone.
    * `--task-identity` is `--task_identity`.

    Args:
        families: Default class of each option that names a class.
        blanks: Required options that `--print_config` leaves empty.
        options: Of jsonargparse's parser.
    """

    def __init__(self, families: Mapping[str, str] | None = None, blanks: Sequence[str] = (), **options: Any) -> None:
        super().__init__(**{"exit_on_error": False, **options})
        self._families, self._blanks = dict(families or {}), blanks

    def add_function(self, function: Callable[..., Any], skip: set[str] | None = None) -> None:
        """Adds a function's arguments, with help from its docstring."""
        self.add_argument("--config", action="config", help="YAML file with any of the options below.")
        self.add_function_arguments(function, skip=set(skip or ()))

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, *rest: Any, **options: Any
    ) -> Namespace:
        """Parses a command line.

        Raises:
            InputError: Something in it is wrong.
        """
        if rest or options:  # jsonargparse itself, for the arguments of a class
            return super().parse_args(args, *rest, **options)
        describe_instead(self)
        flags = [action.dest for action in self._actions if getattr(action, "_typehint", None) is bool]
        arguments = respelled(sys.argv[1:] if args is None else args, flags)
        files = [value for option, value in itertools.pairwise(arguments) if option == "--config"]
        files += [word.partition("=")[2] for word in arguments if word.startswith("--config=")]
        named = " or ".join(files) or "what was typed"
        try:
            chosen = self._parse_families(arguments) if self._families else super().parse_args(arguments)
        except ArgumentError as error:
            if "Unexpected config:" in str(error):
                raise InputError(
                    f"option --config: {named} holds no options; expected a YAML file with lines such as `seed: 1`."
                ) from None
            raise InputError(self._explain(str(error).replace('"<unicode string>"', named))) from None
        except UnicodeDecodeError:
            raise InputError(f"option --config: {named} is no text; expected a YAML file.") from None
        _check_classes(chosen)
        return chosen

    def instantiate(self, *arguments: Any, **options: Any) -> Namespace:
        """Builds the configured objects.

        Raises:
            InputError: A constructor refused something.
        """
        try:
            return super().instantiate(*arguments, **options)
        except ValueError as error:  # of an option that may be null it says all that was tried
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, InputError):
                cause = cause.__cause__
            raise (cause or error) from None

    def _parse_families(self, arguments: list[str]) -> Namespace:
        defaults = [f"--{family}={path}" for family, path in self._families.items()]
        printing = [argument for argument in arguments if argument.split("=")[0] == "--print_config"]
        options = [argument for argument in arguments if argument not in printing]
        if printing:  # a configuration to be filled in need not be complete
            defaults += [f"--{name}={'[]' if name in LISTS else ''}" for name in self._blanks]
        chosen = super().parse_args([*defaults, *options], defaults=False)
        paths = {family: chosen[family].class_path for family in self._families}
        for path in paths.values():
            _check_types(path)
        self.set_defaults({family: {"class_path": path} for family, path in paths.items()})
        return super().parse_args(printing, namespace=chosen)

    def _explain(self, message: str) -> str:
        """The message without the parser's internals, and with the options or classes that were probably meant."""
        abstract = ABSTRACT.search(message)
        if abstract:
            action = next((action for action in self._actions if action.dest == abstract[1]), None)
            for kind in _kinds(getattr(action, "_typehint", None)):
                if kind.__name__ in abstract.groups()[1:] and inspect.isabstract(kind):
                    return _abstract(abstract[1], kind)
        hint = self._hint(message)
        for pattern, plain in CLEARER:
            message = re.sub(pattern, plain, message, flags=re.DOTALL)
        text = " ".join(line.strip() for line in message.splitlines() if line.strip())
        if re.search(r"expected str( or null)?, found (True|False|None|[-+.\d]\S*)( or null|$)", text):
            hint = " YAML takes it for something else than text: write it in quotes."
        return f"{text.rstrip('.')}.{hint} `{' '.join(self.prog.split()[:2])} --help` lists the options."

    def _hint(self, message: str) -> str:
        if "unrecognized" in message:
            pairs = [(word, self._similar(word[2:])) for word in re.findall(r"--[\w.]+", message)]
            return "".join(f" Did you mean --{option} instead of {word}?" for word, option in pairs if option)
        unknown = re.search(r"Option '(\w+)' is not accepted.*?class_path='([\w.]+)'", message, re.DOTALL)
        if unknown:
            options = options_of(_class(unknown[2]))
            return f" {unknown[2]} takes {', '.join(options)}." + _closest(unknown[1], options)
        path = re.search(r'Parser key "(\w+)".*import path string: (\S+)', message, re.DOTALL)
        if path:
            inner = re.findall(r"Callable\[\[[^]]*\], ([\w.]+)\]", message[: message.index("import path string")])
            action = next((action for action in self._actions if action.dest == path[1]), None)
            names = _subclasses(_class(inner[-1]) if inner else getattr(action, "_typehint", None))
            listed = ", ".join(names) if len(names) <= 8 else f"{len(names)} of them, see `mtorl list`"
            return f" There are {listed}; a class of your own is named module.Class.{_closest(path[2], names)}"
        return ""

    def _similar(self, word: str) -> str | None:
        options = [action.dest for action in self._actions]
        last = word.rsplit(".", 1)[-1]
        ends = [option for option in options if option.rsplit(".", 1)[-1] == last]
        return next(iter(ends or difflib.get_close_matches(word, options, 1, 0.7)), None)


CLEARER = (
    (r"^error: ", ""),
    (r"- Not of type \S*Path\S*: expected str, bytes or os.PathLike object, not \w+", ""),
    (r'Parser key "([^"]*)":\s*', r"option --\1: "),
    (r"Problem with given class_path '([^']*)':", r"cannot use the class \1:"),
    (r"Does not validate against any of the Union subtypes.*Errors:", ""),
    (r"- Expected a path but \S+ either not accessible or invalid", ""),
    (r"Type \S+Callable.*expects a function or a callable class: ", ""),
    (r"Got value: Namespace\(.*\)", ""),
    (r"Given value type: .*Given value: ", "found "),
    (r"\.?\s*Got value: ", ", found "),
    (r"(?:- )?Expected a (?:dot import path string: )", "unknown class "),
    (r"typing\.Literal\[([^]]*)\]", r"value of \1"),
    (r"<class 'NoneType'>", "null"),
    (r"<class '([\w.]+)'>", r"\1"),
    (r"- Expected an? (.*?)\s+- Expected an? ", r"expected \1 or "),
    (r"(?:- )?Expected an? ", "expected "),
    (r"found ", ", found "),
    (r"[\s,.]+, found", ", found"),
    (r"option --(\w+): option --(\w+):", r"option --\1.\2:"),
    (r"(?:-\s+)?(unknown class \S+)[\s,]+expected null, found \S+", r"\1"),
)
"""Patterns in the parser's messages, and what to say instead; a pattern that is not found does no harm."""
ABSTRACT = re.compile(
    r"Parser key \"(\w+)\".*(?:but (?:[\w.]+\.)?(\w+) is abstract|are required.*class_path='(?:[\w.]+\.)?(\w+)'\)"
    r"|is abstract.*Given value: (?:[\w.]+\.)?(\w+)$)",
    re.DOTALL,
)
"""What the parser says of a class that may be abstract: the option, and the class's name in one of three places."""


set_dumper("yaml", partial(dump_yaml, unicode=True))


def _class(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def options_of(kind: type) -> list[str]:
    """Names of the options that a class takes, its parents' among them, without what the program itself hands over."""
    return list(annotations_of(kind))


def annotations_of(kind: type) -> dict[str, Any]:
    """The same names, each with the option's annotation."""
    parser = ArgumentParser(exit_on_error=False)
    names = parser.add_class_arguments(kind, sub_configs=True, fail_untyped=False)
    handed = HANDED_OVER if "features" in names else HANDED_OVER[:-1]  # suites have an option `tasks`
    found = {action.dest: getattr(action, "_typehint", None) for action in parser._actions}
    return {name: found.get(name) for name in names if name not in handed}


def _check_types(path: str) -> None:
    """Refuses a constructor with untyped parameters: their values could not be written to a file and read again."""
    for name, parameter in inspect.signature(_class(path)).parameters.items():
        if parameter.annotation is parameter.empty and parameter.kind not in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        ):
            raise InputError(
                f"{path}: the parameter {name} of its constructor has no type; expected one for every parameter, "
                f"because constructors are the schema of configurations. Write {name}: int, say, or spec: DataSpec."
            )


def _closest(word: str, names: Sequence[str]) -> str:
    matches = difflib.get_close_matches(word, names, 1, 0.6)
    return f" Did you mean {matches[0]}?" if matches else ""


def _kinds(annotation: Any) -> list[type]:
    """The classes that an option accepts, abstract ones among them, as far as they are imported."""
    if not isinstance(annotation, type):
        return [kind for part in get_args(annotation) if not isinstance(part, list) for kind in _kinds(part)]
    children: list[type] = annotation.__subclasses__()
    return [annotation, *[kind for child in children for kind in _kinds(child)]]


def _subclasses(annotation: Any) -> list[str]:
    """Names of the concrete classes that an option accepts."""
    return sorted({kind.__name__ for kind in _kinds(annotation) if not inspect.isabstract(kind)} - {"NoneType"})


def _abstract(option: str, kind: type) -> str:
    return f"option --{option}: {kind.__name__} is abstract; expected one of {', '.join(_subclasses(kind))}."


def _check_classes(chosen: Namespace, prefix: str = "") -> None:
    """Raises InputError for a class that is only a base of others, and for options that are null but may not be."""
    for name, value in vars(chosen).items():
        if isinstance(value, Namespace):
            path = value.get("class_path")
            if isinstance(path, str):
                kind = _class(path)
                if inspect.isabstract(kind):
                    raise InputError(_abstract(prefix + name, kind))
                for option, argument in vars(value.get("init_args") or Namespace()).items():
                    if argument is None and not _takes_null(kind, option):
                        raise InputError(
                            f"option --{prefix}{name}.{option}: found null; leave it out, or give a value."
                        )
            _check_classes(value, prefix if name == "init_args" else f"{prefix}{name}.")


def _takes_null(kind: type, option: str) -> bool:
    """Whether the annotation of a class's own or inherited option names None."""
    signatures = (inspect.signature(parent.__init__).parameters for parent in kind.__mro__)  # type: ignore[misc]
    annotation = next((parameters[option].annotation for parameters in signatures if option in parameters), Any)
    return bool(re.search("None|Optional|Any", str(annotation)))
