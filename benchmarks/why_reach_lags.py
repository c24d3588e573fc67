"""Where the hand comes to rest in `reach-v3`, the easiest task and the one that cloned policies fail most.

    python benchmarks/why_reach_lags.py runs/benchmarks/bc-seed0        # a trained MT10 run

Success means that the point between the fingers is within 5 cm of the goal. The scripted expert steers the *hand* to
the goal; the fingers hang 4.5 cm below it. Its own resting point is thus 5 mm inside the lower edge of a ball of
10 cm: a policy that rests 5 mm lower than its teacher fails, one that rests 9 cm higher succeeds.
"""

import sys

import numpy as np
from common import save

from mtorl.envs.base import RolloutContext
from mtorl.envs.policies import ExpertPolicy
from mtorl.runs.run import Run


def rest(policy: object, suite: object, task: int) -> tuple[np.ndarray, np.ndarray]:
    """Fingers minus goal after 150 steps `[goals, 3]`, and whether the episode succeeded."""
    goals = list(suite.goals("heldout"))
    offsets, success = [], []
    for start in range(0, len(goals), 10):
        block = goals[start : start + 10]
        rows = [suite.make(task) for _ in block]
        observations = np.stack([row.reset(goal) for row, goal in zip(rows, block, strict=True)])
        policy.reset(RolloutContext(np.full(10, task), np.array(block)))
        rewards, reached = np.zeros(10, np.float32), np.zeros(10, bool)
        for _ in range(150):
            actions = policy.act(observations, rewards)
            for number, row in enumerate(rows):
                observations[number], rewards[number], now, _ = row.step(actions[number])
                reached[number] |= now
        offsets += [row.raw.tcp_center - row.raw._target_pos for row in rows]
        success += reached.tolist()
    return np.array(offsets), np.array(success)


def main() -> None:
    """Measures a run and the expert and writes results/why_reach_lags.json."""
    run = Run(sys.argv[1])
    suite = run.suite()
    task = suite.task_names.index("reach-v3")
    results = {}
    for name, policy in (("expert", ExpertPolicy(suite)), ("behavior cloning", run.policy()[0])):
        offsets, success = rest(policy, suite, task)
        results[name] = {
            "success": round(float(success.mean()), 3),
            "height_over_goal_mm": {
                "successes": summary(1000 * offsets[success, 2]),
                "failures": summary(1000 * offsets[~success, 2]),
            },
            "horizontal_distance_mm": {
                "successes": summary(1000 * np.linalg.norm(offsets[success, :2], axis=1)),
                "failures": summary(1000 * np.linalg.norm(offsets[~success, :2], axis=1)),
            },
        }
    save("why_reach_lags", {"goals": 50, "success_radius_mm": 50, "results": results})


def summary(values: np.ndarray) -> list[float]:
    """10 %, 50 % and 90 % quantile; empty without values."""
    return np.quantile(values, [0.1, 0.5, 0.9]).round(1).tolist() if len(values) else []


if __name__ == "__main__":
    main()
