"""Parameters that refuse what they do not know, with the nearest name they do."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from tradelib.errors import InvalidInput, unknown_name


class Params(BaseModel):
    """Base of frozen, typed parameters; InvalidInput names the parameter, its value and why."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        kind = type(self).__name__
        for name in values.keys() - type(self).model_fields.keys():
            raise unknown_name("parameter", name, type(self).model_fields, kind)
        try:
            super().__init__(**values)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"]))
            raise InvalidInput(
                f"{kind} {name} = {first['input']!r} is not acceptable: {first['msg']}."
            ) from error

    def changed(self, **values: Any) -> Self:
        """A copy with these parameters instead, checked as a new one is."""
        return type(self)(**{**dict(self), **values})
