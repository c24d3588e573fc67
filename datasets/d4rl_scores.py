"""Returns that count as 0 and as 100 in the normalised scores of D4RL.

Source: Fu et al., "D4RL: Datasets for Deep Data-Driven Reinforcement Learning", 2020, appendix; the numbers are those
of its package (`d4rl/infos.py`): the return of a random policy, and of a trained one.
"""

BOUNDS: dict[str, tuple[float, float]] = {
    "hopper": (-20.272305, 3234.3),
    "halfcheetah": (-280.178953, 12135.0),
    "walker2d": (1.629008, 4592.3),
    "ant": (-325.6, 3879.7),
}
"""Of each environment, by the name that begins those of its data sets."""


def d4rl_bounds(environment_name: str) -> tuple[float, float] | None:
    """The returns that count as 0 and as 100.

    Args:
        environment_name: Of the environment, without a version: `halfcheetah`. Capitals do not matter.

    Returns:
        The two returns; None where the paper has none.
    """
    return BOUNDS.get(environment_name.lower())
