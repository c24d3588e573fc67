"""Three speed-ups that do not change a bit of the results.

They are on by default (`fast=True`) for the tested version of the package: the contact test of grasping rewards reads
MuJoCo's arrays instead of building Python objects, quaternions are computed without scipy, and the observation is
filled in place instead of split and stacked.
"""

import math
import types
from typing import Any

import numpy as np
from numpy.typing import NDArray

TESTED_VERSIONS = {"metaworld": "3.1.1", "mujoco": "3.3.0"}
"""The versions for which the speed-ups were shown to change nothing; with others they are off."""


def fast_methods(stock: Any) -> dict[str, Any]:
    """The three result-preserving replacements for one environment class."""
    quaternions = stock._get_quat_objects
    namespace = {**quaternions.__globals__, "Rotation": _Rotation}
    return {
        "touching_object": _touching_object,
        "_get_curr_obs_combined_no_goal": _combined_observation,
        "_get_quat_objects": types.FunctionType(
            quaternions.__code__, namespace, quaternions.__name__, quaternions.__defaults__, quaternions.__closure__
        ),
    }


def _touching_object(self: Any, object_geom_id: int) -> bool:
    """Whether both finger pads press on a geometry (the package's test, on arrays instead of contact objects)."""
    contact = self.data.contact
    pairs, addresses, forces = contact.geom.tolist(), contact.efc_address.tolist(), self.data.efc_force
    for pad in (self.data.geom("leftpad_geom").id, self.data.geom("rightpad_geom").id):
        force = 0.0
        for pair, address in zip(pairs, addresses, strict=True):
            if pad in pair and object_geom_id in pair:
                force += forces[address]
        if not force > 0:
            return False
    return True


def _combined_observation(self: Any) -> NDArray[np.float64]:
    """Hand, gripper opening, and position and quaternion of each object: the 18 numbers of one frame."""
    frame = np.zeros(4 + self._obs_obj_max_len)
    frame[:3] = self.get_endeff_pos()
    apart = self.data.body("rightclaw").xpos - self.data.body("leftclaw").xpos
    frame[3] = min(max(math.sqrt(apart.dot(apart)) / 0.1, 0.0), 1.0)
    positions, quaternions = self._get_pos_objects(), self._get_quat_objects()
    for number in range(len(positions) // 3):
        begin = 4 + 7 * number
        frame[begin : begin + 3] = positions[3 * number : 3 * number + 3]
        frame[begin + 3 : begin + 7] = quaternions[4 * number : 4 * number + 4]
    return frame


class _Rotation:
    """The one use that the package makes of scipy's Rotation: a rotation matrix to a quaternion (x, y, z, w)."""

    def __init__(self, quaternion: NDArray[np.float64]) -> None:
        self._quaternion = quaternion

    @staticmethod
    def from_matrix(matrix: NDArray[np.float64]) -> "_Rotation":
        (a, b, c), (d, e, f), (g, h, i) = matrix.tolist()
        trace = a + e + i
        largest = max(a, e, i, trace)
        # The order of these cases and of the sums is scipy's, so that the last bits agree.
        if a == largest:
            x, y, z, w = 1 - trace + 2 * a, d + b, g + c, h - f
        elif e == largest:
            x, y, z, w = d + b, 1 - trace + 2 * e, h + f, c - g
        elif i == largest:
            x, y, z, w = g + c, h + f, 1 - trace + 2 * i, d - b
        else:
            x, y, z, w = h - f, c - g, d - b, 1 + trace
        norm = math.sqrt(x * x + y * y + z * z + w * w)
        return _Rotation(np.array([x / norm, y / norm, z / norm, w / norm]))

    def as_quat(self) -> NDArray[np.float64]:
        return self._quaternion
