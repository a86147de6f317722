"""The function mode that puts every operation of a forward pass on the tape.

Interception happens where PyTorch dispatches its Python functions, so functional calls, residual additions and
third-party modules are covered and the model is not touched: no hooks, no copies, no changed weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from heatprint.core.errors import Unsupported
from heatprint.explainers.lrp.operators import IN_PLACE, LIKE, LIKE_OTHER, OPERATORS
from heatprint.explainers.lrp.tape import Tape


class Watch(TorchFunctionMode):
    """Runs each operation by its handler when it touches a tensor on the tape."""

    def __init__(self, tape: Tape) -> None:
        super().__init__()
        self._tape = tape

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not any(self._tape.carries(a) for a in _flat((args, tuple(kwargs.values())))):
            return func(*args, **kwargs)
        if func in LIKE or (func in LIKE_OTHER and not self._tape.carries(args[0])):
            return func(*self._tape.current(args), **self._tape.current(kwargs))
        old = args[0] if args else kwargs.get("input")
        args, kwargs = self._tape.current(args), self._tape.current(kwargs)
        in_place = func in IN_PLACE or kwargs.pop("inplace", False)
        operator = IN_PLACE.get(func, func)
        if operator not in OPERATORS or kwargs.get("out") is not None:
            return self._unknown(func, args, kwargs)
        kwargs.pop("out", None)
        out = OPERATORS[operator](self._tape, self, operator, args, kwargs)
        if in_place and isinstance(old, Tensor) and out is not old:
            self._tape.replace(old, out)
        return out

    def _unknown(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Questions that return no activation (a shape, an index) are answered; anything else is an error."""
        name = _name(func)
        leaves = name in ("numpy", "__array__")  # what comes back from there cannot be followed
        changes = (
            leaves
            or (name.endswith("_") and not name.endswith("__"))
            or name in ("__setitem__", "__iadd__", "__imul__")
        )
        out = None if changes or "out" in kwargs else func(*args, **kwargs)
        if out is None or any(isinstance(o, Tensor) and (o.is_floating_point() or o.is_complex()) for o in _flat(out)):
            known = sorted({_name(f) for f in OPERATORS if not _name(f).startswith("_")})
            raise Unsupported(
                f"lrp: there is no rule for the operation {name!r}. Rules exist for: {', '.join(known)}. "
                "Rewrite the layer with these, or explain with a method that needs no rules: 'input_t_gradient', "
                "'integrated_gradients', 'occlusion'."
            )
        return out


def _flat(values: Any) -> list[Any]:
    if isinstance(values, tuple | list):
        return [item for value in values for item in _flat(value)]
    return list(values.values()) if isinstance(values, dict) else [values]


def _name(func: Callable[..., Any]) -> str:
    name = str(getattr(func, "__name__", func))
    return str(getattr(func.__self__, "__name__", name)) if name == "__get__" and hasattr(func, "__self__") else name
