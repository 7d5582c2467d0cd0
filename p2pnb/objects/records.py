"""Dataclasses and named tuples as data: the class comes back only where the receiver registered it.

A peer may name a class; it may not choose what runs. Registered classes are filled field by field without calling
`__init__` or `__post_init__`; everything else arrives as a `Record`.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeVar

from p2pnb.errors import UsageError

__all__ = ["Record", "is_namedtuple", "rebuild_record", "record_name", "register_dataclass"]

C = TypeVar("C", bound=type)

_registered: Final[dict[str, type]] = {}
_lock = threading.Lock()


def register_dataclass(cls: C, *, name: str | None = None) -> C:
    """Let received values of this dataclass or named tuple arrive as `cls`; usable as a decorator.

    `name` is what it is called on the wire, by default its module and qualified name; give one if the peers define the
    class in different modules. Types of received fields are not checked. Raises `UsageError`.
    """
    known: object = cls
    if not (isinstance(known, type) and (dataclasses.is_dataclass(cls) or is_namedtuple_class(cls))):
        raise UsageError("register_dataclass takes a dataclass or a named tuple class")
    with _lock:
        _registered[name or f"{cls.__module__}.{cls.__qualname__}"] = cls
    return cls


def record_name(cls: type) -> str:
    """Return what the class is called on the wire."""
    with _lock:
        for name, known in _registered.items():
            if known is cls:
                return name
    return f"{cls.__module__}.{cls.__qualname__}"


def is_namedtuple_class(cls: type) -> bool:
    """Say whether `cls` was made by `collections.namedtuple` or `typing.NamedTuple`."""
    fields = getattr(cls, "_fields", None)
    return issubclass(cls, tuple) and isinstance(fields, tuple) and all(isinstance(field, str) for field in fields)


def is_namedtuple(value: object) -> bool:
    """Say whether `value` is a named tuple."""
    return is_namedtuple_class(type(value))


class Record:
    """A received dataclass or named tuple whose class is not registered here: read-only, fields as attributes.

    `record["field"]` reads fields whose name is no attribute name; `dict(record)` gives all of them.
    """

    __slots__ = ("__fields", "__name")

    def __init__(self, name: str, fields: Mapping[str, object]) -> None:
        object.__setattr__(self, "_Record__name", name)
        object.__setattr__(self, "_Record__fields", dict(fields))

    def __getattr__(self, name: str) -> Any:  # only for what the class itself lacks
        if not name.startswith("_Record__"):
            try:
                return self.__fields[name]
            except KeyError:
                pass
        raise AttributeError(name)

    def __getitem__(self, name: str) -> Any:
        return self.__fields[name]

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a received record is read-only")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a received record is read-only")

    def keys(self) -> Iterator[str]:
        return iter(self.__fields)

    def __dir__(self) -> list[str]:
        return [*self.__fields]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Record):
            return NotImplemented
        return bool(self.__name == other.__name and self.__fields == other.__fields)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self.__fields.items())
        return f"Record({self.__name!r}, {fields})"


def rebuild_record(name: str, fields: Mapping[str, object]) -> object:
    """Return an instance of the class registered as `name` if these are its fields, else a `Record`."""
    with _lock:
        cls = _registered.get(name)
    if cls is None:
        return Record(name, fields)
    if dataclasses.is_dataclass(cls):
        if [field.name for field in dataclasses.fields(cls)] != list(fields):
            return Record(name, fields)
        instance = object.__new__(cls)
        for field, value in fields.items():
            object.__setattr__(instance, field, value)
        return instance
    if list(cls._fields) != list(fields):  # type: ignore[attr-defined]
        return Record(name, fields)
    return tuple.__new__(cls, tuple(fields.values()))
