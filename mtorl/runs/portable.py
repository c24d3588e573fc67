"""A trained policy as one module of tensors: normaliser, masks, hidden goals and limits of actions are inside.

Its `forward` takes what the agent decides on (`Agent.decides_on`), and the position of the task as an int64 scalar:
the parameters of that task are then used. It knows nothing of episodes; whoever plays it keeps the last steps.
"""

import copy
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from mtorl import InputError
from mtorl.agents import Agent
from mtorl.envs.base import RolloutContext, Suite
from mtorl.trainers.policy import PolicyPerGroup, TaskPolicy


class Portable(Protocol):
    """From what is seen and a task to actions."""

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Actions `[N, A]` in [-1, 1] from the inputs that `decides_on` names, and a task `[]`."""
        ...


class PortablePolicy(nn.Module):
    """What acts in a `Player`, on tensors alone.

    Args:
        policy: The policy.
        suite: What it was trained for: says which numbers of an observation are the goal's, if that is hidden.

    Attributes:
        decides_on: Names of the inputs before the task.
        shown: `[T, O]`, one for what the policy sees of an observation, zero for a goal that is hidden.
    """

    shown: Tensor
    group: Tensor
    place: Tensor

    def __init__(self, policy: TaskPolicy | PolicyPerGroup, suite: Suite) -> None:
        super().__init__()
        policies = policy.policies if isinstance(policy, PolicyPerGroup) else (policy,)
        self.task_names = policy.task_names
        self.parts = nn.ModuleList([TaskModule(one) for one in policies])
        self.decides_on = self.members[0].agent.decides_on
        everything = np.ones((1, suite.observation_dim), dtype=np.float32)
        shown = [suite.of(task).observe(everything)[0] for task in range(len(self.task_names))]
        self.register_buffer("shown", torch.from_numpy(np.stack(shown)))
        # a task's group and place in it: the other groups' models are computed, too, and not looked at
        places = [
            [one.task_names.index(it) if it in one.task_names else 0 for one in policies] for it in policy.task_names
        ]
        groups = [next(n for n, one in enumerate(policies) if it in one.task_names) for it in policy.task_names]
        self.register_buffer("place", torch.tensor(places))
        self.register_buffer("group", torch.tensor(groups))
        self.eval()

    @property
    def members(self) -> "list[TaskModule]":
        """The models that it consists of: one, or one for each group of tasks."""
        return [part for part in self.parts if isinstance(part, TaskModule)]

    def forward(self, *inputs: Tensor) -> Tensor:
        """See `Portable`."""
        *steps, task = inputs
        steps[0] = steps[0] * self.shown[task]
        if len(self.parts) == 1:
            return self.parts[0](*steps, task)
        places = self.place[task]
        each = torch.stack([part(*steps, places[number]) for number, part in enumerate(self.parts)])
        return each[self.group[task]]


class TaskModule(nn.Module):
    """One agent, with the parameters of the task that it is told.

    Args:
        policy: The agent, and what its tasks share.
    """

    def __init__(self, policy: TaskPolicy) -> None:
        super().__init__()
        own = parameters_of_tasks(policy)
        self.decider = _Decider(copy.deepcopy(policy.agent))
        self.differing = tuple(own)
        for number, values in enumerate(own.values()):
            self.register_buffer(f"tasks_{number}", values)

    @property
    def agent(self) -> Agent:
        """The agent; what differs by task is not in it."""
        return self.decider.agent

    def own(self) -> dict[str, Tensor]:
        """The agent's parameters that differ by task `[T, ...]`, by their names in the agent."""
        return {name: getattr(self, f"tasks_{number}") for number, name in enumerate(self.differing)}

    def forward(self, *inputs: Tensor) -> Tensor:
        """See `Portable`."""
        *steps, task = inputs
        tasks = task.expand(steps[0].shape[0])
        if not self.differing:
            return self.decider(tasks, *steps)
        places = [(*_owner(self.agent, name), values) for name, values in self.own().items()]
        shared = [module._parameters.pop(last) for module, last, _ in places]
        for module, last, values in places:  # torch.func.functional_call cannot be traced in a module
            setattr(module, last, values[task])
        try:
            return self.decider(tasks, *steps)
        finally:
            for (module, last, _), value in zip(places, shared, strict=True):
                delattr(module, last)
                module._parameters[last] = value


class _Decider(nn.Module):
    """`Agent.decide`, within the limits of actions."""

    def __init__(self, agent: Agent) -> None:
        super().__init__()
        self.agent = agent

    def forward(self, tasks: Tensor, *steps: Tensor) -> Tensor:
        return self.agent.decide(tasks, *steps).clamp(-1, 1)


def parameters_of_tasks(policy: TaskPolicy) -> dict[str, Tensor]:
    """What of an agent's parameters differs by task, `[T, ...]`, as the policy plays them; nothing without masks."""
    if policy.shares_all:
        return {}
    found = []
    for task in range(len(policy.task_names)):
        sizes = policy.agent.spec.dimensions_of(task)
        policy.reset(RolloutContext(np.array([task]), np.zeros(1, dtype=np.int64), dimensions=sizes))
        found.append({name: values.clone() for name, values in policy.agent.named_parameters()})
    same = {name for name, values in found[0].items() if all(torch.equal(values, it[name]) for it in found)}
    return {name: torch.stack([it[name] for it in found]) for name in found[0] if name not in same}


def _owner(agent: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that has a parameter, and what it is called there."""
    path, _, last = name.rpartition(".")
    return agent.get_submodule(path), last


class Examples:
    """Inputs to try a portable policy with.

    Args:
        policy: The policy.
    """

    def __init__(self, policy: PortablePolicy) -> None:
        spec = policy.members[0].agent.spec
        self.policy, self.window = policy, policy.members[0].agent.window
        self.observation_dim, self.action_dim = policy.shown.shape[1], spec.action_dim

    @cached_property
    def reads_steps(self) -> bool:
        """Whether the policy looks at steps before the newest."""
        return len(self.policy.decides_on) > 1

    def inputs(self, rows: int, steps: int, task: int, seed: int = 0) -> tuple[Tensor, ...]:
        """N rows, of K steps if the policy looks at them, for a task."""
        draw = torch.Generator().manual_seed(seed)
        inner = (rows, steps) if self.reads_steps else (rows,)
        made = {
            "observations": torch.randn(*inner, self.observation_dim, generator=draw),
            "actions": torch.rand(*inner, self.action_dim, generator=draw) * 2 - 1,
            "returns_to_go": torch.rand(inner, generator=draw) * 100,
            "timesteps": torch.arange(steps).expand(inner),
        }
        return (*(made[name] for name in self.policy.decides_on), torch.tensor(task))

    def various(self) -> list[tuple[Tensor, ...]]:
        """All tasks, and numbers of rows and steps that a form with baked-in sizes does not bear."""
        tasks = len(self.policy.task_names)
        lengths = sorted({1, 2, max(self.window // 2, 1), self.window}) if self.reads_steps else [1]
        rows = [1, 10, 3, 40]
        pairs = [(rows[number % 4], steps) for number, steps in enumerate(lengths)] if self.reads_steps else []
        sizes = pairs + [(count, self.window) for count in rows]
        return [
            self.inputs(*sizes[number % len(sizes)], number % tasks, number) for number in range(max(tasks, len(sizes)))
        ]


@torch.no_grad()
def check_same(policy: PortablePolicy, other: Portable, form: str, tolerance: float = 1e-5) -> None:
    """Raises InputError unless something gives the policy's actions for all tasks, numbers of rows and of steps."""
    for inputs in Examples(policy).various():
        sizes = "x".join(str(size) for size in inputs[0].shape[:-1])
        try:
            worst = float((policy(*inputs) - other(*inputs)).abs().max())
        except (RuntimeError, ValueError) as error:
            raise _refused(
                policy, form, f"with {sizes} observations it ends with: {str(error).splitlines()[-1]}"
            ) from None
        if not worst <= tolerance:
            raise _refused(policy, form, f"with {sizes} observations its actions differ by {worst:.2g}")


def check_portable(policy: TaskPolicy | PolicyPerGroup, form: str) -> None:
    """Raises InputError unless all of a policy's agents say how they act on tensors alone."""
    for one in policy.policies if isinstance(policy, PolicyPerGroup) else (policy,):
        if not one.agent.decides_on:
            raise InputError(
                f"{type(one.agent).__name__} does not say how it acts on tensors alone (Agent.decide), which {form} "
                "needs. Use --format run."
            )


def _refused(policy: PortablePolicy, form: str, reason: str) -> InputError:
    name = type(policy.members[0].agent).__name__
    return InputError(f"{name} cannot be written as {form}: {reason}. Use --format safetensors, or run.")
