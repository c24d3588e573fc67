"""Groups that a branched network chooses while it trains (Gao et al., 2024)."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mtorl import checks
from mtorl.agents import BehaviorCloning
from mtorl.agents.networks import branches
from mtorl.datasets.grouping import Grouping
from mtorl.datasets.sampler import TaskSampler
from mtorl.datasets.spec import DataSpec
from mtorl.trainers.executions import PhaseFunctions
from mtorl.trainers.groupers.base import TaskGrouper, check_count, numbered
from mtorl.trainers.groupers.clusters import without_gaps
from mtorl.trainers.seeding import isolated
from mtorl.trainers.sharing import Sharing


class DMTG(TaskGrouper):
    """Trains a small branched network on the run's data for a while; tasks that choose the same branch are a group.

    Only the data of the run count, not its agent. A branch that nobody chose takes the task that minds least.

    Deviations from the paper:
    1. One head for all tasks: else heads could make up for a branch that does not fit.
    2. The choices learn faster than the rest: training is short.

    Source: Gao et al., DMTG: One-Shot Differentiable Multi-Task Grouping, 2024, section 3.

    Args:
        steps: Of training.
        lr: Learning rate.
        choice_rate: How many times faster the choices learn.
        stem: Sizes of the layers that all tasks share; none by default.
        hidden: Sizes of the layers of each branch.
        temperature: Of the Gumbel-softmax at first.
        final_temperature: What it falls to.
        entropy: Weight of the entropy of each task's choices in its loss.
    """

    def __init__(
        self,
        steps: int = 300,
        lr: float = 3e-3,
        choice_rate: float = 10.0,
        stem: Sequence[int] = (),
        hidden: Sequence[int] = (64, 64),
        temperature: float = 2.5,
        final_temperature: float = 0.5,
        entropy: float = 0.0,
    ) -> None:
        checks.at_least(1, steps=steps)
        checks.within("(0, inf)", lr=lr, choice_rate=choice_rate)
        checks.within("[0.05, inf)", temperature=temperature, final_temperature=final_temperature)
        checks.within("[0, inf)", entropy=entropy)
        self.steps, self.lr, self.choice_rate = steps, lr, choice_rate
        self.stem, self.hidden = tuple(stem), tuple(hidden)
        self.temperature, self.final_temperature, self.entropy = temperature, final_temperature, entropy

    def fit(
        self, functions: PhaseFunctions, sharing: Sharing, sampler: TaskSampler, groups: int, seed: int = 0
    ) -> Grouping:
        """See `TaskGrouper.fit`."""
        spec = functions.agent.spec
        check_count(groups, len(spec.task_names))
        like = functions.agent.observation_mean
        with isolated(seed, "dmtg", device=like.device):
            logits = self._trained(spec, sampler, groups, like).double().cpu()
        chances = logits.softmax(-1)
        units = torch.nn.functional.normalize(chances, dim=-1)
        labels = without_gaps(chances.argmax(-1).numpy(), logits.log_softmax(-1).numpy())
        closeness = (units @ units.T).clamp(max=1).fill_diagonal_(1)
        return Grouping(
            spec.task_names,
            numbered(labels),
            tuple(tuple(row) for row in ((closeness + closeness.T) / 2).tolist()),
            float(np.mean([float(chances[task, label]) for task, label in enumerate(labels)])),
            f"DMTG(steps={self.steps}); score is the mean probability of the tasks' own branches",
        )

    def _trained(self, spec: DataSpec, sampler: TaskSampler, groups: int, like: Tensor) -> Tensor:
        """The logits `[T, groups]` after training."""

        def network(inputs: int, code: int) -> branches.DMTG:
            return branches.DMTG(
                inputs,
                code,
                groups,
                self.stem,
                self.hidden,
                self.temperature,
                self.final_temperature,
                self.steps,
                self.entropy,
                self.choice_rate,  # Deviation 2
            )

        agent = BehaviorCloning(spec, network=network, output_heads="shared").to(like)  # Deviation 1
        optimizer = torch.optim.Adam(agent.parameters(), self.lr)
        for _ in range(self.steps):
            batch = sampler.draw().to(like.device, like.dtype)
            optimizer.zero_grad()
            agent(0, batch).values.mean().backward()
            optimizer.step()
            agent.phases[0].after_step()
        chooser = agent.backbone
        assert isinstance(chooser, branches.DMTG)
        return chooser.logits(torch.eye(len(spec.task_names)).to(like)).detach()
