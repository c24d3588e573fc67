"""Which modules the blocks of a transformer mix."""

from typing import Literal

import torch
from torch import Tensor

from mtorl import InputError, checks
from mtorl.agents.base import TaskLink
from mtorl.agents.networks.soft_modules import SoftRouter

RouterContext = Literal["task", "token", "prompt"]


class BlockRouter(SoftRouter):
    """Of each block a mixture of the modules that its feed-forward network is divided into.

    A mixture of modules is a dense network whose hidden units are multiplied by their module's share.

    Args:
        code: Z, size of the task's vector.
        width: Size of a token; a feed-forward network has 4 * width hidden units.
        layers: Blocks.
        modules: n, in each block.
        context: What mixtures depend on, besides the task.
        contexts: What they may depend on.
    """

    def __init__(
        self, code: int, width: int, layers: int, modules: int, context: RouterContext, contexts: tuple[str, ...]
    ) -> None:
        if modules < 1 or 4 * width % modules:
            raise InputError(f"modules is {modules}; expected a divisor of 4 * width = {4 * width}.")
        checks.one_of("router_context", context, contexts)
        if context == "task" and not code:
            raise InputError("router_context=task needs a vector for each task. Use task_identity onehot or embed.")
        super().__init__(code, width, (width,), [(modules,)] * layers)
        self.context, self.units = context, 4 * width // modules

    def routes(self, tokens: Tensor, code: Tensor, prompt: Tensor | None) -> list[Tensor]:
        """Of each block the modules' shares `[M, n]`, or of each token `[M, S, n]`.

        Args:
            tokens: `[M, S, width]`, as they enter the transformer.
            code: `[M, Z]`.
            prompt: `[M, P, width]`, the tokens of prompts, if there are any.
        """
        observed = {"task": None, "token": tokens, "prompt": None if prompt is None else prompt.mean(1)}
        return self(observed[self.context], code)

    @torch.no_grad()
    def task_links(self, code: Tensor) -> list[TaskLink]:
        """See `Agent.task_links`: routing is a connection where the task alone decides on it; codes `[T, Z]`."""
        shares = self(None, code) if self.context == "task" else []
        return [
            TaskLink("route", f"backbone.blocks.{number}.expand.weight", it.square().repeat_interleave(self.units, 1))
            for number, it in enumerate(shares)
        ]
