"""Protocol Buffers, looked through before their parser makes an object of every few bytes."""

from typing import Any

from fastrnn.files.budget import Budget
from fastrnn.files.errors import MisfitError

#: Bytes that parsers take: for a message, for any field, for a byte of packed numbers.
_MESSAGE, _FIELD, _PACKED = 1_000, 40, 16
#: Fields between two looks at the budget.
_OFTEN = 4096


def check(data: bytes, descriptor: Any, budget: Budget, what: str) -> None:
    """Raise MisfitError where a message would take too much, or a name in it is no UTF-8.

    descriptor: of the message, which tells which fields are messages themselves.
    """
    todo = [(descriptor, 0, len(data))]
    kinds: dict[str, dict[int, Any]] = {}
    cost, count = _MESSAGE, 0
    while todo:
        one, at, end = todo.pop()
        fields = kinds.get(one.full_name)
        if fields is None:
            fields = kinds[one.full_name] = dict(one.fields_by_number)
        while at < end:
            cost += _FIELD
            count += 1
            if count % _OFTEN == 0:
                budget.take(cost, what)
                cost = 0
            key, at = _varint(data, at, end)
            kind = key & 7
            if kind == 0:
                _, at = _varint(data, at, end)
            elif kind == 2:
                size, at = _varint(data, at, end)
                field = fields.get(key >> 3)
                if field is not None:
                    if field.message_type is not None:
                        cost += _MESSAGE
                        todo.append((field.message_type, at, min(at + size, end)))
                    elif field.type == field.TYPE_STRING:
                        _check_text(field.name, data[at : at + size])
                    elif field.type not in (
                        field.TYPE_BYTES,
                        field.TYPE_FLOAT,
                        field.TYPE_DOUBLE,
                    ):
                        cost += _PACKED * size
                at += size
            elif kind in (1, 5):
                at += 8 if kind == 1 else 4
            else:
                raise MisfitError(f"{what} is cut short or damaged")
            if at > end:
                raise MisfitError(f"{what} is cut short or damaged")
    budget.take(cost, what)


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise MisfitError("it is cut short or damaged")


def _check_text(name: str, text: bytes) -> None:
    if name == "doc_string":
        return
    try:
        text.decode()
    except UnicodeDecodeError:
        raise MisfitError(f"a {name}, {text[:60]!r}, is no UTF-8") from None
