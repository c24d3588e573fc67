"""Multi-task Decision Transformer (Chen et al., 2021): actions from a window of returns, observations and actions.

Deviations from the paper:
1. Windows are padded at their end, so the causal mask alone hides the padding.
2. Past actions can be left out of the context. With smooth experts the next action is nearly the last one, and a
   policy that may copy itself stops looking at the state.
3. Returns-to-go are divided by their spread in each task, and the target is a quantile of its returns, instead of one
   constant for all tasks. The spread runs from the 5 % quantile of the episodes' lowest to the 95 % quantile of their
   highest, and includes zero, where every episode ends: rewards may be of any sign and size, and where none is negative
   it is the 95 % quantile of the returns.
4. Steps are numbered within the window by default, not within the episode.
5. What is left of the target return when acting stays within the returns-to-go that the task's data show, or between
   these and the target: an episode that goes on after its success (or, where rewards are negative, one that does worse
   than was asked for) would otherwise ask for what no data show.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor, nn

from mtorl import InputError, checks
from mtorl.agents.base import Agent, Phase, TaskLink, TaskLosses
from mtorl.agents.block_router import BlockRouter, RouterContext
from mtorl.agents.heads import HeadMaker, OutputHeads, Relations, build_head
from mtorl.agents.history import History, TransformerRollout
from mtorl.agents.networks.base import over_inner_axes
from mtorl.agents.parameters import ParameterSpace
from mtorl.agents.returns import ReturnRange, expected_returns, recorded_reach
from mtorl.agents.task_parts import TaskEncoder, TaskGains, TaskIdentity
from mtorl.agents.transformer import CausalTransformer, FeedForward, KeysValues, initialise_transformer
from mtorl.datasets.batch import TaskBatch
from mtorl.datasets.spec import DataSpec
from mtorl.datasets.store import EpisodeStore
from mtorl.envs.base import RolloutContext
from mtorl.schema import State

FeedForwardKind = Literal["dense", "soft_modules"]


class DecisionTransformer(Agent):
    """A causal transformer over the last steps of an episode.

    Args:
        spec: What is known of the data.
        context: K, steps in the window.
        width: Size of a token.
        layers: Transformer blocks.
        attention_heads: Attention heads per block; must divide `width`.
        dropout: Probability in the transformer.
        return_conditioning: Give the network the return-to-go of every step.
        target_quantile: The return asked for when acting: this quantile of the task's recorded returns.
        action_context: Past actions as tokens: full, dropout (each token is zeroed with `action_dropout`), or none.
        action_dropout: Probability for `action_context=dropout`.
        time: Number the steps within the window, within the episode, or not at all.
        positions: Steps that the table of `time=episode` tells apart; those of the longest episode by default.
        task_identity: How the network is told its task: none, onehot or embed (a learned vector).
        output_heads: One last layer for all tasks (shared), one each (per_task), one for each group of `--grouping`
            (per_group), or one each without tanh (linear, for balancers that need it).
        head: Another head in place of these, see `mtorl list heads`.
        task_gain: A learned factor of each task on every hidden unit of the feed-forward networks.
        ffn: Feed-forward networks of the blocks: dense, or a mixture of modules (soft_modules).
        modules: In each block, for `ffn=soft_modules`; must divide `4 * width`.
        router_context: Which mixture is used depends on the task alone (task), or on the token as it enters the network
            and the task if it is told (token).
        per_task_normalisation: Normalise observations with each task's own statistics.
        std_floor: Smallest standard deviation used for normalising.
        clip: Normalised observations are clipped to plus or minus this.
    """

    router_contexts: tuple[str, ...] = ("task", "token")
    decides_on = ("observations", "actions", "returns_to_go", "timesteps")
    rollout: TransformerRollout
    return_scale: Tensor
    return_target: Tensor
    return_least: Tensor
    return_most: Tensor

    def __init__(
        self,
        spec: DataSpec,
        context: int = 20,
        width: int = 128,
        layers: int = 3,
        attention_heads: int = 4,
        dropout: float = 0.1,
        return_conditioning: bool = True,
        target_quantile: float = 0.9,
        action_context: Literal["full", "dropout", "none"] = "none",
        action_dropout: float = 0.5,
        time: Literal["window", "episode", "none"] = "window",
        positions: int | None = None,
        task_identity: TaskIdentity = "onehot",
        output_heads: OutputHeads = "shared",
        head: HeadMaker | None = None,
        task_gain: bool = False,
        ffn: FeedForwardKind = "dense",
        modules: int = 4,
        router_context: RouterContext = "task",
        per_task_normalisation: bool = False,
        std_floor: float = 0.01,
        clip: float = 5.0,
    ) -> None:
        super().__init__(spec, per_task_normalisation, std_floor, clip)
        checks.at_least(1, context=context, layers=layers, attention_heads=attention_heads)
        checks.within("[0, 1]", dropout=dropout, action_dropout=action_dropout, target_quantile=target_quantile)
        if width < 1 or width % attention_heads:
            raise InputError(f"width is {width}; expected a positive multiple of attention_heads={attention_heads}.")
        tasks = len(spec.task_names)
        self.window, self.width = context, width
        self.return_conditioning, self.action_context, self.time = return_conditioning, action_context, time
        self.reads_rewards = return_conditioning
        self.action_dropout = action_dropout if action_context == "dropout" else 0.0
        self.encoder = TaskEncoder(task_identity, tasks)
        self._embed_steps(positions)
        self.backbone = CausalTransformer(width, layers, attention_heads, dropout)
        initialise_transformer(self)
        self.gains = TaskGains(tasks, [4 * width] * layers if task_gain else ())
        checks.one_of("ffn", ffn, FeedForwardKind)
        self.router: BlockRouter | None = None
        if ffn == "soft_modules":
            self.router = BlockRouter(self.encoder.size, width, layers, modules, router_context, self.router_contexts)
        self.head = build_head(head, width, spec, output_heads)
        for name, values in vars(expected_returns(spec, target_quantile)).items():  # Deviation 3
            self.register_buffer(f"return_{name}", values)
        self.phases = (self._phase(),)

    def _embed_steps(self, positions: int | None) -> None:
        """Makes what turns steps into tokens; `positions` is the constructor's."""
        spec, width, acts = self.spec, self.width, self.action_context != "none"
        if positions is not None and positions < spec.horizon:
            raise InputError(f"positions is {positions}; expected at least {spec.horizon}, the steps of an episode.")
        self.positions = positions or spec.horizon
        self.tokens_per_step = 1 + self.return_conditioning + acts
        self.embed_return = nn.Linear(1, width) if self.return_conditioning else None
        self.embed_observation = nn.Linear(spec.observation_dim + self.encoder.size, width)
        self.embed_action = nn.Linear(spec.action_dim, width) if acts else None  # Deviation 2
        self.embed_time = nn.Embedding({"window": self.window, "episode": self.positions, "none": 1}[self.time], width)
        self.norm_tokens = nn.LayerNorm(width)

    def remember(self, stores: Sequence[EpisodeStore]) -> None:
        """Keeps how far returns-to-go reach: where rewards are of both signs, further than returns do."""
        for number, (width, least, most) in enumerate(recorded_reach(stores, self.spec.task_names)):
            self.return_scale[number], self.return_least[number], self.return_most[number] = width, least, most

    def _load_from_state_dict(self, state_dict: State, prefix: str, *arguments: Any) -> None:
        """Checkpoints made before there was a limit above have none, and act as they did."""
        if prefix + "return_scale" in state_dict:  # not so where only a task's parameters are loaded
            state_dict.setdefault(prefix + "return_most", torch.full_like(self.return_most, math.inf))
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def _phase(self) -> Phase:
        private = [self.encoder, self.gains, *self.head.private()]
        return Phase("policy", self._losses, ParameterSpace(self, private=private, maskable=[self.backbone]), self)

    def _routes(self, tokens: Tensor, task_ids: Tensor, prompt: Tensor | None) -> list[Tensor]:
        """See `BlockRouter.routes`; nothing without modules."""
        return [] if self.router is None else self.router.routes(tokens, self.encoder(task_ids), prompt)

    def _gains(self, tokens: Tensor, task_ids: Tensor, prompt: Tensor | None = None) -> list[Tensor]:
        """Factors on the hidden units of each block: those of the tasks `[M]` times the shares of the units' modules.

        Tokens and prompt as in `BlockRouter.routes`.
        """
        gains = self.gains(task_ids)
        if self.router is None:
            return gains
        routes = [it.repeat_interleave(self.router.units, -1) for it in self._routes(tokens, task_ids, prompt)]
        if not gains:
            return routes
        return [route * (gain if route.ndim == 2 else gain[:, None]) for route, gain in zip(routes, gains, strict=True)]

    def _feed_forwards(self, tokens: Tensor, task_ids: Tensor, prompt: Tensor | None = None) -> list[FeedForward]:
        """The feed-forward networks of the blocks, or nothing where they are the blocks' own."""
        return self.backbone.scaled(self._gains(tokens, task_ids, prompt))

    @torch.no_grad()
    def routing(self, batch: TaskBatch) -> list[Tensor]:
        """See `Agent.routing`."""
        tokens, prompt, rows = self._inputs(batch)
        routes = self._routes(tokens, rows, prompt)
        return [it.unflatten(0, (len(batch.task_ids), -1)).flatten(1, -2).mean(1) for it in routes]

    def _inputs(self, batch: TaskBatch) -> tuple[Tensor, Tensor | None, Tensor]:
        """Of M windows all tokens `[M, S, width]`, the prompts among them `[M, P, width]`, and the tasks `[M]`."""
        tokens = self._tokens(
            self._observation_inputs(batch.observations, batch.task_ids).flatten(0, 1),
            (batch.returns_to_go / self.return_scale[batch.task_ids].view(-1, 1, 1)).flatten(0, 1),  # Deviation 3
            batch.actions.flatten(0, 1),
            batch.timesteps.flatten(0, 1),
        )
        prefix = self._prefix(batch)
        tokens = tokens if prefix is None else torch.cat([prefix, tokens], 1)
        return tokens, prefix, batch.task_ids.repeat_interleave(batch.valid.shape[1])

    def _losses(self, batch: TaskBatch) -> TaskLosses:
        return self.head(self._features(batch), batch)

    def _features(self, batch: TaskBatch) -> Tensor:
        """What the transformer says at each observation, `[T, B, L, width]`."""
        tokens, prompt, rows = self._inputs(batch)  # Deviation 1: nothing says which of them are padding
        outputs = self.backbone(tokens, feed_forwards=self._feed_forwards(tokens, rows, prompt))
        return self._at_observations(outputs, batch)

    def _at_observations(self, outputs: Tensor, batch: TaskBatch) -> Tensor:
        """Of outputs `[M, S, width]` those of the windows' observations, from which actions are read."""
        tasks, windows, steps = batch.valid.shape
        outputs = outputs[:, -steps * self.tokens_per_step :]  # behind the prompt
        outputs = rearrange(outputs, "m (l k) f -> m l k f", k=self.tokens_per_step)
        return outputs[:, :, int(self.return_conditioning)].view(tasks, windows, steps, -1)

    @torch.no_grad()
    def relations(self, batch: TaskBatch) -> Relations | None:
        """See `Agent.relations`."""
        if not self.head.related:
            return None
        return self.head.relations(self._features(batch), batch.valid, batch.task_ids)

    def _prefix(self, batch: TaskBatch) -> Tensor | None:
        """Tokens `[M, S, width]` in front of each window; none here."""
        return None

    def _observation_inputs(self, observations: Tensor, task_ids: Tensor) -> Tensor:
        """Normalised observations `[T, ..., O]` with the task's vector behind them."""
        code = over_inner_axes(self.encoder(task_ids), observations).expand(*observations.shape[:-1], -1)
        return torch.cat([self.normalise(observations, task_ids), code], -1)

    def _tokens(
        self, observations: Tensor, returns: Tensor, actions: Tensor, timesteps: Tensor, first: int = 0
    ) -> Tensor:
        """Tokens (return, observation, action) of each step, in this order, those that are used.

        Args:
            observations: `[M, L, O + task]`, normalised.
            returns: `[M, L]`, returns-to-go, scaled.
            actions: `[M, L, A]`.
            timesteps: `[M, L]`, steps within the episode.
            first: Steps of the window that come before these.

        Returns:
            `[M, L * tokens_per_step, width]`.
        """
        kinds = [self.embed_observation(observations)]
        if self.embed_return is not None:
            kinds.insert(0, self.embed_return(returns[..., None]))
        if self.embed_action is not None:
            if self.training and self.action_dropout:
                keep = torch.rand(actions.shape[:2], device=actions.device) >= self.action_dropout
                actions = actions * keep[..., None]
            kinds.append(self.embed_action(actions))
        steps = torch.stack(kinds, 2) + self._time(timesteps, first)[:, :, None]
        return self.norm_tokens(steps.flatten(1, 2))  # m l k f -> m (l k) f

    def _time(self, timesteps: Tensor, first: int) -> Tensor:
        if self.time == "episode":
            return self.embed_time(timesteps.clamp(max=self.embed_time.num_embeddings - 1))
        if self.time == "none":
            return self.embed_time.weight[None]
        return self.embed_time.weight[first : first + timesteps.shape[1]][None]  # Deviation 4

    def task_links(self) -> list[TaskLink]:
        """See `Agent.task_links`."""
        links = [
            TaskLink("gain", f"backbone.blocks.{number}.expand.weight", value.detach().square())
            for number, value in enumerate(self.gains.values)
        ]
        if self.router is not None:
            every = torch.arange(len(self.spec.task_names), device=self.observation_mean.device)
            links += self.router.task_links(self.encoder(every))
        heads = self.head.strengths()
        if heads is not None:
            links.append(TaskLink("head", f"backbone.blocks.{len(self.backbone.blocks) - 1}.contract.weight", heads))
        return links

    @property
    def needs_demonstration(self) -> bool:
        """What to ask for is known of the agent's own tasks; of others it is what a demonstration earned."""
        return self.return_conditioning

    @property
    def returns(self) -> ReturnRange:
        """Of each task, `[T]`."""
        return ReturnRange(self.return_scale, self.return_target, self.return_least, self.return_most)

    def begin(self, tasks: Tensor, context: RolloutContext) -> TransformerRollout:
        """See `Agent.begin`."""
        inputs = self.spec.observation_dim + self.encoder.size
        history = History(self.window, inputs, self.spec.action_dim, self._wanted(tasks, context))  # Deviation 5
        return TransformerRollout(tasks, history, context.context == "anchored")

    def _wanted(self, tasks: Tensor, context: RolloutContext) -> ReturnRange:
        """What is asked for in N episodes; where the task is hidden, what a demonstration earned."""
        if context.tasks is None and context.demonstration is not None:
            return self.returns.shown(context.demonstration, len(tasks))
        return self.returns.select(tasks)

    def acted(self, actions: NDArray[np.float32]) -> None:
        """See `Agent.acted`."""
        self.rollout.history.acted(self._to_tensor(actions))

    @torch.no_grad()
    def act(self, observations: NDArray[np.float32], rewards: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Agent.act`. One forward pass for all episodes of the block."""
        now = self.rollout
        inputs = self._observation_inputs(self._to_tensor(observations), now.tasks)
        now.history.observe(inputs, self._to_tensor(rewards))
        if now.anchored:
            features = self._anchored_features(now)
        else:
            tokens = self._asking(now.history.window(self.window))
            features = self.backbone(tokens, True, self._feed_forwards(tokens, now.tasks, now.prompt), now.before)
        actions = self._decide(features[:, 0], now.history.window(1)[0][:, 0], now.tasks)
        now.history.acted(actions)
        return actions.to(torch.float32).cpu().numpy()

    def decide(self, tasks: Tensor, *inputs: Tensor) -> Tensor:
        """See `Agent.decide`."""
        observations, actions, returns, timesteps = inputs
        seen, asked = self._observation_inputs(observations, tasks), self.returns.select(tasks)
        least, most = asked.limits  # Deviation 5
        scaled = returns.clamp(least[:, None], most[:, None]) / asked.scale[:, None]
        tokens = self._asking((seen, scaled, actions, timesteps))
        prompt, before = self._prompt_of(tasks)
        features = self.backbone(tokens, True, self._feed_forwards(tokens, tasks, prompt), before)
        return self._decide(features.flatten(1), seen[:, -1], tasks)

    def _prompt_of(self, tasks: Tensor) -> tuple[Tensor | None, Sequence[KeysValues]]:
        """Tokens in front of windows of these tasks `[N]`, with their keys and values; none here."""
        return None, ()

    def _decide(self, features: Tensor, newest: Tensor, tasks: Tensor) -> Tensor:
        """Actions `[N, A]` from the features of the newest observations `[N, width]`, and these `[N, O + task]`."""
        return self.head.act(features, tasks)

    def _asking(self, window: tuple[Tensor, Tensor, Tensor, Tensor], first: int = 0) -> Tensor:
        """The tokens of some steps, without the newest action, which is what is asked for."""
        tokens = self._tokens(*window, first)
        return tokens if self.embed_action is None else tokens[:, :-1]

    def _anchored_features(self, now: TransformerRollout) -> Tensor:
        """The newest output `[N, 1, width]`: what is new is computed, and when K steps are seen, half of them anew."""
        if 0 < now.length < self.window:
            tokens = self._asking(now.history.window(2), now.length - 1)
            known = self.tokens_per_step - (self.embed_action is not None)  # the older step's, but for its action
            tokens, before, now.length = tokens[:, known:], now.kept, now.length + 1
        else:
            window = now.history.window(max(self.window // 2, 1))
            tokens, before, now.length = self._asking(window), now.before, window[0].shape[1]
        feed_forwards = self._feed_forwards(tokens, now.tasks, now.prompt)
        features, now.kept = self.backbone.extend(tokens, feed_forwards, before)
        return features
