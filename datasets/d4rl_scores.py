"""Returns that count as 0 and as 100 in the normalised scores of D4RL.

Source: Fu et al., "D4RL: Datasets for Deep Data-Driven Reinforcement Learning", 2020, appendix. The numbers are those
of its package d4rl 1.1 (`d4rl/infos.py`, REF_MIN_SCORE and REF_MAX_SCORE): the return of a random policy, and of a
trained one. Copyright of its authors, licence Apache-2.0 (https://www.apache.org/licenses/LICENSE-2.0); changed: what
holds for all data sets of an environment stands here once.
"""

import re

BOUNDS: dict[str, tuple[float, float]] = {
    "hopper": (-20.272305, 3234.3),
    "halfcheetah": (-280.178953, 12135.0),
    "walker2d": (1.629008, 4592.3),
    "ant": (-325.6, 3879.7),
    "antmaze": (0.0, 1.0),
    "kitchen": (0.0, 4.0),
    "pen": (96.262799, 3076.8331017826877),
    "hammer": (-274.856578, 12794.134825156867),
    "relocate": (-6.425911, 4233.877797728884),
    "door": (-56.512833, 2880.5693087298737),
    "maze2d-open": (0.01, 20.66),
    "maze2d-umaze": (23.85, 161.86),
    "maze2d-medium": (13.13, 277.39),
    "maze2d-large": (6.7, 273.99),
    "maze2d-open-dense": (11.17817, 27.166538620695782),
    "maze2d-umaze-dense": (68.537689, 193.66285642381482),
    "maze2d-medium-dense": (44.264742, 297.4552547777125),
    "maze2d-large-dense": (30.569041, 303.4857382709002),
    "minigrid-fourrooms": (0.01442, 2.89685),
    "flow-ring": (-165.22, 24.42),
    "flow-merge": (118.67993, 330.03179),
    "carla-lane": (-0.8503839912088142, 1023.5784385429523),
    "carla-town": (-114.81579500772153, 2440.1772022247314),
    "bullet-halfcheetah": (-1275.766996, 2381.6725),
    "bullet-hopper": (20.058972, 1441.8059623430963),
    "bullet-ant": (373.705955, 2650.495),
    "bullet-walker2d": (16.523877, 1623.6476303317536),
    "bullet-maze2d-open": (8.75, 64.15),
    "bullet-maze2d-umaze": (32.46, 153.99),
    "bullet-maze2d-medium": (14.87, 238.05),
    "bullet-maze2d-large": (1.82, 285.92),
}
"""Of each environment, by the words that begin the names of its data sets."""


def d4rl_bounds(name: str) -> tuple[float, float] | None:
    """The returns that count as 0 and as 100.

    Args:
        name: Of an environment, such as `halfcheetah`, or of a data set, such as `halfcheetah-medium-replay-v2`.
            Capitals and a version do not matter.

    Returns:
        The two returns; None where D4RL has none.
    """
    words = re.sub(r"-v\d+$", "", name.lower()).split("-")
    beginnings = ("-".join(words[:count]) for count in range(len(words), 0, -1))
    return next((BOUNDS[it] for it in beginnings if it in BOUNDS), None)
