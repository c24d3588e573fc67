"""Prompt Decision Transformer (Xu et al., 2022): a decision transformer that is shown the task instead of its name.

In front of every window stand some steps of a recorded episode of the same task, as tokens (return, observation,
action) with projections and a time table of their own. They see nothing of the window, so when acting their keys and
values are worked out once per episode.

Deviations:
1. The steps are the end of an episode, one before its last (HarmoDT), so that they show the task solved.
2. Prompts hold past actions even where the window does not: they are the demonstrator's, and cannot be copied.
3. The published network also predicts returns and observations, which its loss does not use; those heads (10,280 of its
   5.29 million parameters) are left out.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from mtorl import InputError
from mtorl.agents.block_router import RouterContext
from mtorl.agents.decision_transformer import DecisionTransformer
from mtorl.agents.history import TransformerRollout
from mtorl.agents.task_parts import TaskIdentity
from mtorl.agents.transformer import KeysValues, initialise_transformer
from mtorl.datasets.batch import TaskBatch
from mtorl.datasets.prompts import Prompt, PromptPick, PromptPool, PromptSettings, PromptSource, prompt_of
from mtorl.datasets.spec import DataSpec
from mtorl.datasets.store import EpisodeStore
from mtorl.envs.base import RolloutContext


class PromptDecisionTransformer(DecisionTransformer):
    """A causal transformer over a prompt and the last steps of an episode.

    Args:
        spec: What is known of the data.
        prompt_length: Steps in the prompt.
        prompt_pick: Whose steps: a random one of the `prompt_best` episodes (topk: with success, and with the highest
            returns), any (uniform), or as the released code of HarmoDT (official). Acting, the best episode's.
        prompt_source: Take prompts from the episodes that are trained on (train), or from the last two of each task,
            which then are not trained on (heldout).
        prompt_best: Episodes that `topk` draws from.
        width: Size of a token.
        layers: Transformer blocks.
        attention_heads: Attention heads per block; must divide `width`.
        task_identity: How else the network is told its task: none, onehot or embed (a learned vector).
        router_context: Which mixture is used depends on the prompt (prompt), on the task alone (task), or on the token
            as it enters the network (token); and on the task, if it is told.
        options: Of `DecisionTransformer`; `time` numbers the steps of prompts always within the episode.
    """

    router_contexts = ("prompt", "task", "token")
    best_observations: Tensor
    best_actions: Tensor
    best_returns_to_go: Tensor
    best_timesteps: Tensor

    def __init__(
        self,
        spec: DataSpec,
        prompt_length: int = 5,
        prompt_pick: PromptPick = "topk",
        prompt_source: PromptSource = "train",
        prompt_best: int = 10,
        width: int = 256,
        layers: int = 6,
        attention_heads: int = 8,
        task_identity: TaskIdentity = "none",
        router_context: RouterContext = "prompt",
        **options: Any,
    ) -> None:
        settings = PromptSettings(prompt_length, prompt_pick, prompt_source, prompt_best)  # Deviation 1
        super().__init__(
            spec,
            width=width,
            layers=layers,
            attention_heads=attention_heads,
            task_identity=task_identity,
            router_context=router_context,
            **options,
        )
        self.prompts = settings
        self.embed_prompt = nn.ModuleDict(
            {
                "returns": nn.Linear(1, width),
                "observations": nn.Linear(spec.observation_dim + self.encoder.size, width),
                "actions": nn.Linear(spec.action_dim, width),  # Deviation 2: whatever the window holds
                "time": nn.Embedding(self.positions, width),
            }
        )
        initialise_transformer(self.embed_prompt)  # Deviation 3: in tokens only, no heads
        tasks, length = len(spec.task_names), settings.length
        self.register_buffer("best_observations", torch.zeros(tasks, length, spec.observation_dim))
        self.register_buffer("best_actions", torch.zeros(tasks, length, spec.action_dim))
        self.register_buffer("best_returns_to_go", torch.zeros(tasks, length))
        self.register_buffer("best_timesteps", torch.zeros(tasks, length, dtype=torch.long))
        self.phases = (self._phase(),)  # again: now there are more parameters. Deviation 3: for actions alone

    @property
    def best(self) -> Prompt:
        """The prompt of each task's best episode `[T, K, ...]`."""
        return Prompt(self.best_observations, self.best_actions, self.best_returns_to_go, self.best_timesteps)

    def remember(self, stores: Sequence[EpisodeStore]) -> None:
        """See `DecisionTransformer.remember`; keeps the prompt of each task's best episode, for acting, too."""
        super().remember(stores)
        assert self.prompts is not None
        found = PromptPool(stores, self.spec.task_names, self.prompts).best()
        for buffer, values in zip(self.best.tensors, found.tensors, strict=True):
            buffer.copy_(values)

    def _prefix(self, batch: TaskBatch) -> Tensor:
        if batch.prompt is None:
            raise InputError("the batch has no prompts; expected windows from a sampler with the agent's prompts.")
        return self._prompt_tokens(batch.prompt, batch.task_ids, self.return_scale[batch.task_ids]).flatten(0, 1)

    def _prompt_tokens(self, prompt: Prompt, task_ids: Tensor, scale: Tensor) -> Tensor:
        """Tokens `[T, ..., 3 * K, width]` of prompts `[T, ..., K, ...]`: return, observation, action, ...

        Args:
            prompt: Of each task.
            task_ids: `[T]`.
            scale: `[T]`, what returns are divided by.
        """
        returns = prompt.returns_to_go / scale.view(-1, *[1] * (prompt.returns_to_go.ndim - 1))
        kinds = [
            self.embed_prompt["returns"](returns[..., None]),
            self.embed_prompt["observations"](self._observation_inputs(prompt.observations, task_ids)),
            self.embed_prompt["actions"](prompt.actions),  # Deviation 2
        ]
        steps = torch.stack(kinds, -2) + self.embed_prompt["time"](prompt.timesteps)[..., None, :]
        return steps.flatten(-3, -2)  # t b k 3 f -> t b (k 3) f

    def begin(self, tasks: Tensor, context: RolloutContext) -> TransformerRollout:
        """See `Agent.begin`; the prompt is read once: that of a demonstration if there is one, else the task's own."""
        shown, scale = self._shown(tasks, context), self._wanted(tasks, context).scale
        prompt, before = self._read(shown, tasks, scale)
        return replace(super().begin(tasks, context), prompt=prompt, before=before)

    def _prompt_of(self, tasks: Tensor) -> tuple[Tensor, Sequence[KeysValues]]:
        """See `DecisionTransformer`: the tasks' own prompts."""
        return self._read(self.best.map(lambda values: values[tasks]), tasks, self.return_scale[tasks])

    def _read(self, prompt: Prompt, tasks: Tensor, scale: Tensor) -> tuple[Tensor, Sequence[KeysValues]]:
        """Tokens of prompts, with their keys and values; arguments as of `_prompt_tokens`."""
        tokens = self._prompt_tokens(prompt, tasks, scale)
        return tokens, self.backbone.keys_values(tokens, self._feed_forwards(tokens, tasks, tokens))

    def _shown(self, tasks: Tensor, context: RolloutContext) -> Prompt:
        """What is shown to N episodes `[N, K, ...]`."""
        if context.demonstration is None:
            return self.best.map(lambda values: values[tasks])
        like = self.observation_mean
        shown = prompt_of(context.demonstration, self.best_timesteps.shape[1]).to(like.device, like.dtype)
        return shown.map(lambda values: values.expand(len(tasks), *values.shape))

    @property
    def needs_demonstration(self) -> bool:
        """Prompts are known of the agent's own tasks."""
        return True
