"""What every agent offers: phases with one loss per task, and acting."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mtorl import InputError, checks
from mtorl.agents.heads import Head, Relations, TaskLosses
from mtorl.agents.parameters import ParameterSpace
from mtorl.agents.task_parts import TaskEncoder, TaskGains
from mtorl.datasets.batch import TaskBatch
from mtorl.datasets.prompts import PromptSettings
from mtorl.datasets.spec import DataSpec
from mtorl.datasets.store import EpisodeStore
from mtorl.envs.base import RolloutContext


@dataclass(frozen=True)
class Phase:
    """One loss and the parameters it moves.

    Attributes:
        name: For logs and for the optimizer of this phase.
        losses: From a batch of any number of tasks to one loss per task, in one pass.
        space: The parameters that tasks share in this loss. Per-task heads, task embeddings and frozen parameters
            (`requires_grad=False`) are not in it.
        module: The module whose parameters the phase's optimizer moves, but for those that are frozen.
        every: Move only every that many steps.
        start: Move from this share of training on.
        stop: Move until this share of training is done.
        after_step: Called after each move (target networks).
        splits: A task's loss is a mean over valid positions of its windows, so that these can be split up.
    """

    name: str
    losses: Callable[[TaskBatch], TaskLosses]
    space: ParameterSpace
    module: nn.Module
    every: int = 1
    start: float = 0.0
    stop: float = 1.0
    after_step: Callable[[], None] = lambda: None
    splits: bool = True

    def span(self, steps: int) -> range:
        """The training steps, of that many in all, in which it may move."""
        return range(round(self.start * steps), round(self.stop * steps))


@dataclass(frozen=True)
class TaskLink:
    """The connections that single tasks have to the outputs of a shared layer.

    Attributes:
        kind: `gain`, a factor on each output; `route`, the share of the output's module in the mixtures that read it;
            or `head`, the weights of the tasks' heads, whose inputs the outputs are.
        name: Name of the shared layer's weight matrix, whose rows are the outputs.
        strengths: `[T, outputs]`, squared factor or share, or squared norm of the head's weights.
    """

    kind: Literal["gain", "route", "head"]
    name: str
    strengths: Tensor


class Agent(nn.Module, ABC):
    """A policy for all tasks, built from what is known of the data.

    Args:
        spec: Dimensions, task names and statistics of the data.
        per_task_normalisation: Normalise observations with each task's own statistics instead of the global ones.
        std_floor: Smallest standard deviation used for normalising.
        clip: Normalised observations are clipped to plus or minus this.

    Attributes:
        spec: The same.
        window: L, steps per training window.
        phases: The losses, in the order in which they are applied.
        prompts: Which recorded steps its windows come with, if it wants any.
        next_observations: Its losses need what follows each step.
        reads_rewards: Its actions depend on what was earned in the episode.
        decides_on: What `decide` wants besides the tasks: observations, or the last steps of episodes; nothing where an
            agent does not say how it acts on tensors alone.
        policies: Names of its policies, if it has several; `choose` says which one acts.
        act_with: Which one that is.
        rollout: What it keeps during the block of episodes that it plays, from `begin`.
    """

    window: int
    prompts: PromptSettings | None = None
    next_observations = False
    reads_rewards = False
    decides_on: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    act_with: str | None = None
    phases: tuple[Phase, ...]
    privileged = False
    observation_mean: Tensor
    observation_std: Tensor
    rollout: Any

    def __init__(self, spec: DataSpec, per_task_normalisation: bool, std_floor: float, clip: float) -> None:
        super().__init__()
        checks.within("(0, inf)", std_floor=std_floor)
        checks.within("(0, inf]", clip=clip)
        self.spec = spec
        self.clip = clip
        self._normalised_per_task = per_task_normalisation
        mean, std = spec.normaliser(per_task_normalisation, std_floor)
        self.register_buffer("observation_mean", torch.from_numpy(mean))
        self.register_buffer("observation_std", torch.from_numpy(std))

    @abstractmethod
    def act(self, observations: NDArray[np.float32], rewards: NDArray[np.float32]) -> NDArray[np.float32]:
        """Actions `[N, A]` in [-1, 1].

        Args:
            observations: `[N, O]`, as the suite gives them.
            rewards: `[N]`, of the steps before; zero at the first call of an episode.
        """

    def decide(self, tasks: Tensor, *inputs: Tensor) -> Tensor:
        """What it does, from tensors alone: for exports, in which nothing of an agent is left but its arithmetic.

        Args:
            tasks: int64 `[N]`, the same task in all rows.
            inputs: As `decides_on` names them. Observations alone are `[N, O]`; with the steps before them `[N, K, O]`,
                and actions `[N, K, A]`, of which the newest is not looked at, returns-to-go and timesteps `[N, K]`.

        Returns:
            `[N, A]` in [-1, 1].
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how it acts on tensors alone.")

    @property
    def acting_phases(self) -> tuple[str, ...]:
        """Names of the phases whose parameters are used in acting; all by default."""
        return tuple(phase.name for phase in self.phases)

    @property
    def shadows(self) -> dict[str, str]:
        """Names of parameters that follow others, each with the other's: a task's masks leave out the same of both."""
        return {}

    def choose(self, policy: str) -> None:
        """Lets one of its policies act.

        Raises:
            InputError: It has no such policy.
        """
        raise InputError(f"{type(self).__name__} has one policy only; found act_with={policy!r}. Leave it out.")

    def remember(self, stores: Sequence[EpisodeStore]) -> None:
        """Keeps, in buffers, what acting needs of the training data; nothing by default."""

    @abstractmethod
    def begin(self, tasks: Tensor, context: RolloutContext) -> Any:
        """What it keeps during a block of N episodes: nothing else of an agent changes while it acts.

        Args:
            tasks: int64 `[N]`; zero where the task is hidden.
            context: What is known of the episodes.
        """

    @torch.no_grad()
    def reset(self, context: RolloutContext) -> None:
        """Begins a block of N episodes.

        Raises:
            InputError: The tasks are hidden and this agent needs them, or a demonstration instead.
        """
        if context.tasks is None:
            if self.needs_task:
                raise InputError(
                    f"{type(self).__name__} was trained with the task's identity; it cannot act where that is hidden. "
                    "Train it with task_identity=none, shared heads, no gains of single tasks and global normalisation."
                )
            if self.needs_demonstration and context.demonstration is None:
                raise InputError(
                    f"{type(self).__name__} asks for a return, or reads a prompt, which it knows of its own tasks "
                    "only; where the task is hidden it cannot act unless it is shown an episode of it. "
                    "Say where there are some with --demonstrations DATA."
                )
            tasks = torch.full((len(context.goals),), self._of_dimensions(context.dimensions))
        else:
            tasks = torch.from_numpy(context.tasks)
        self.rollout = self.begin(tasks, context)

    def _of_dimensions(self, dimensions: tuple[int, int] | None) -> int:
        """A task that stands for a hidden one: where tasks have padding, one of its dimensions."""
        known = self.spec.own_dimensions
        if known is None:
            return 0
        if dimensions not in known:
            raise InputError(
                f"a hidden task has observation and action dimensions {dimensions}; {type(self).__name__} knows tasks "
                f"with {sorted({*known})}. Play tasks of these dimensions."
            )
        return known.index(dimensions)

    @property
    def needs_task(self) -> bool:
        """Whether acting depends on the task's identity."""
        parts = list(self.modules())
        told = any(isinstance(part, TaskEncoder) and part.kind != "none" for part in parts)
        own = any(part.per_task for part in parts if isinstance(part, Head))
        own = own or any(part.task_rows() for part in parts if isinstance(part, TaskGains))
        return told or self._normalised_per_task or own

    @property
    def needs_demonstration(self) -> bool:
        """Whether acting in a task whose identity is hidden needs a recorded episode of it."""
        return False

    def acted(self, actions: NDArray[np.float32]) -> None:
        """Tells what was done `[N, A]` instead of what `act` said last."""

    def routing(self, batch: TaskBatch) -> list[Tensor]:
        """How tasks mix modules: of each layer probabilities `[T, ..., n]`, means of a batch; none without modules."""
        return []

    def relations(self, batch: TaskBatch) -> Relations | None:
        """What tasks take from each other, if their heads learn from each other; deviations of those of a batch."""
        return None

    def task_links(self) -> list[TaskLink]:
        """How strongly tasks are tied to the outputs of shared layers; none by default."""
        return []

    def task_rows(self) -> list[nn.Parameter]:
        """Parameters whose rows belong to tasks: those of no task of a batch must not move with it.

        Their first axis is the task, unless `row_of` says otherwise.
        """
        parts = [part for part in self.modules() if isinstance(part, Head | TaskEncoder | TaskGains)]
        rows = [parameter for part in parts for parameter in part.task_rows() if parameter.requires_grad]
        return list(dict.fromkeys(rows))  # heads may hold others

    def strip(self) -> None:
        """Lets go of what only training needs: from now on it can only act."""
        for part in list(self.modules()):
            if isinstance(part, Head):
                part.strip()

    def training_only(self) -> list[str]:
        """Names of the parameters that `strip` lets go of."""
        parts = [part for part in self.modules() if isinstance(part, Head)]
        gone = {id(parameter) for part in parts for parameter in part.training_only()}
        return [name for name, parameter in self.named_parameters() if id(parameter) in gone]

    def row_of(self) -> dict[nn.Parameter, Tensor]:
        """Of parameters with a row for each group of tasks, which row is a task's, `[T]`."""
        heads = [(part, part.row_of) for part in self.modules() if isinstance(part, Head)]
        return {parameter: rows for part, rows in heads if rows is not None for parameter in part.task_rows()}

    def normalise(self, observations: Tensor, task_ids: Tensor) -> Tensor:
        """z-scores of observations `[T, ..., O]` of tasks `[T]`, clipped."""
        shape = (task_ids.shape[0], *[1] * (observations.ndim - 2), observations.shape[-1])
        mean, std = self.observation_mean[task_ids].view(shape), self.observation_std[task_ids].view(shape)
        return ((observations - mean) / std).clamp(-self.clip, self.clip)

    def _to_tensor(self, values: NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(values).to(self.observation_mean)

    def forward(self, phase: int, batch: TaskBatch) -> TaskLosses:
        """The losses of one phase; with `torch.func.functional_call`, at other parameters."""
        return self.phases[phase].losses(batch)
