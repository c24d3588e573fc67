"""Of which tensors tasks have values of their own."""

from typing import Literal

from mtorl import InputError
from mtorl.agents.parameters import ParameterSpace

Tensors = Literal["all", "maskable"]


def chosen(space: ParameterSpace, tensors: Tensors, matrices: bool = False) -> tuple[str, ...]:
    """Names of the shared parameters that tasks are to have values of their own for.

    Args:
        space: The shared parameters.
        tensors: Which: all, or those that masks may touch too.
        matrices: Only those with two axes.

    Raises:
        InputError: There are none.
    """
    rows = zip(space.names, space.shapes, space.maskable, strict=True)
    found = tuple(
        name for name, shape, maskable in rows if (maskable or tensors == "all") and (len(shape) == 2 or not matrices)
    )
    if not found:
        raise InputError(
            f"the agent shares no parameters that are {tensors}; expected some. Use another --sharing.tensors, or an "
            "agent with hidden layers that are not all frozen."
        )
    return found
