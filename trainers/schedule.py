"""When things happen in training."""

from dataclasses import dataclass

from mtorl import checks


@dataclass(frozen=True)
class Schedule:
    """When things happen, in training steps.

    Attributes:
        steps: Training steps in all.
        log_every: Steps between two entries of the log; 0: only one at the end.
        evaluate_every: Steps between two evaluations on training goals; 0: none.
        save_every: Steps between two checkpoints; 0: only one at the end.
        monitor_every: Steps between two records of how the gradients of the tasks conflict; 0: none. A record costs
            about one more training step.
    """

    steps: int = 5000
    log_every: int = 100
    evaluate_every: int = 1000
    save_every: int = 1000
    monitor_every: int = 100

    def __post_init__(self) -> None:
        checks.at_least(1, steps=self.steps)
        checks.at_least(0, log_every=self.log_every, evaluate_every=self.evaluate_every)
        checks.at_least(0, save_every=self.save_every, monitor_every=self.monitor_every)

    def due(self, step: int, every: int) -> bool:
        """Whether something with that interval happens after `step` finished steps."""
        return step > 0 and (step == self.steps or (every > 0 and step % every == 0))

    def evaluates(self, step: int) -> bool:
        """Whether policies are evaluated after `step` finished steps."""
        return self.evaluate_every > 0 and self.due(step, self.evaluate_every)

    def saves(self, step: int) -> bool:
        """Whether there is a checkpoint after `step` finished steps."""
        return self.due(step, self.save_every)

    def logs(self, step: int) -> bool:
        """Whether there is an entry of the log after `step` finished steps."""
        return self.due(step, self.log_every)

    def monitors(self, step: int) -> bool:
        """Whether the step after `step` finished ones is looked at."""
        return self.monitor_every > 0 and step % self.monitor_every == 0
