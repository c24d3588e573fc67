"""What all environments of the package do at every step, on MuJoCo's arrays instead of through its named objects."""

import math
from functools import cached_property
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from mtorl.envs.metaworld.arithmetic import fast_rewards, norm

_UPRIGHT = np.array([1.0, 0.0, 1.0, 0.0])
"""The gripper's quaternion."""
_FRAME = 18
"""Numbers of one frame: hand 3, gripper 1, two objects of 7. An observation is two frames and the goal."""


class Places:
    """Positions that follow an environment: arrays over MuJoCo's memory, by name.

    Args:
        everywhere: Positions of all objects of one kind, `[n, 3]`.
        find: The object of a name, which knows its row.
    """

    def __init__(self, everywhere: NDArray[np.float64], find: Any) -> None:
        self._everywhere, self._find = everywhere, find
        self._known: dict[str, NDArray[np.float64]] = {}

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        place = self._known.get(name)
        if place is None:
            place = self._known[name] = self._everywhere[self._find(name).id]
        return place


class Stepping:
    """The methods of the package's base class that count, for its subclasses."""

    data: Any
    model: Any

    @cached_property
    def _bodies(self) -> Places:
        return Places(self.data.xpos, self.data.body)

    @cached_property
    def _sites(self) -> Places:
        return Places(self.data.site_xpos, self.data.site)

    @cached_property
    def _pads(self) -> tuple[int, int]:
        return self.data.geom("leftpad_geom").id, self.data.geom("rightpad_geom").id

    @cached_property
    def _controls(self) -> NDArray[np.float64]:
        return self.data.ctrl  # type: ignore[no-any-return]

    @cached_property
    def _targets(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Position and quaternion of the body that the hand is drawn to; there is one in every task."""
        return self.data.mocap_pos[0], self.data.mocap_quat[0]

    def get_body_com(self, body_name: str) -> NDArray[np.float64]:
        """The position of a body, as it moves."""
        return self._bodies[body_name]

    def _get_site_pos(self, site_name: str) -> NDArray[np.float64]:
        return self._sites[site_name].copy()

    def get_endeff_pos(self) -> NDArray[np.float64]:
        """The position of the hand, as it moves."""
        return self._bodies["hand"]

    @property
    def tcp_center(self) -> NDArray[np.float64]:
        """The point between the fingers."""
        sites = self._sites
        return (sites["rightEndEffector"] + sites["leftEndEffector"]) / 2.0

    def step(self: Any, action: NDArray[np.float32]) -> tuple[NDArray[np.float64], Any, bool, bool, dict[str, Any]]:
        """See the package.

        Two of its calls are left out, since nothing reads what they write: forces between bodies, and the position of
        the target's site, which `mj_forward` computes again.
        """
        if not self._set_task_called or self.curr_path_length >= self.max_path_length or len(action) != 4:
            return super().step(action)  # type: ignore[misc, no-any-return]  # it says what is wrong
        self.set_xyz_action(action[:3])
        effort = float(action[3])
        control = self._controls
        control[0], control[1] = effort, -effort
        model, data = self.model, self.data
        mujoco.mj_step(model, data, self.frame_skip)
        self.curr_path_length += 1
        mujoco.mj_forward(model, data)
        space = self.sawyer_observation_space
        observation = self._get_obs()
        observation.clip(space.low, space.high, out=observation)
        self._last_stable_obs = observation
        reward, info = self.evaluate_state(observation, action)
        return observation.copy(), reward, False, self.curr_path_length == self.max_path_length, info

    def set_xyz_action(self: Any, action: NDArray[np.float32]) -> None:
        """Moves the point that the hand is drawn to by an action `[3]`, within its bounds."""
        action = np.asarray(action)
        if not all(-1 <= value <= 1 for value in action.tolist()):
            action = action.clip(-1, 1)
        position, quaternion = self._targets
        lows, highs = self.mocap_low.tolist(), self.mocap_high.tolist()
        moves = (action * self.action_scale).tolist()  # the product is of the action's precision
        for axis, (value, move, low, high) in enumerate(zip(position.tolist(), moves, lows, highs, strict=True)):
            position[axis] = min(max(value + move, low), high)
        quaternion[:] = _UPRIGHT

    def _get_obs(self: Any) -> NDArray[np.float64]:
        observation = np.zeros(2 * _FRAME + 3)
        observation[:_FRAME] = frame = self._get_curr_obs_combined_no_goal()
        observation[_FRAME : 2 * _FRAME] = self._prev_obs
        if not self._partially_observable:
            observation[2 * _FRAME :] = self._get_pos_goal()
        self._prev_obs = frame
        return observation

    def _get_curr_obs_combined_no_goal(self: Any) -> NDArray[np.float64]:
        """Hand, gripper opening, and position and quaternion of each object: the 18 numbers of one frame."""
        bodies = self._bodies
        frame = np.zeros(_FRAME)
        frame[:3] = bodies["hand"]
        apart = bodies["rightclaw"] - bodies["leftclaw"]
        frame[3] = min(max(math.sqrt(apart.dot(apart)) / 0.1, 0.0), 1.0)
        positions, quaternions = self._get_pos_objects(), self._get_quat_objects()
        if len(positions) == 3:
            frame[4:7], frame[7:11] = positions, quaternions
        else:
            frame[4:7], frame[7:11] = positions[:3], quaternions[:4]
            frame[11:14], frame[14:18] = positions[3:], quaternions[4:]
        return frame

    def touching_object(self, object_geom_id: int) -> bool:
        """Whether both finger pads press on a geometry."""
        contact = self.data.contact
        pairs = [*enumerate(contact.geom.tolist())]
        for pad in self._pads:
            touching = [number for number, pair in pairs if pad in pair and object_geom_id in pair]
            if not touching:
                return False
            addresses, forces = contact.efc_address, self.data.efc_force
            if not sum(forces[addresses[number]] for number in touching) > 0:
                return False
        return True

    def _reset_hand(self: Any, steps: int = 50) -> None:
        """All steps at once: nothing happens between them."""
        position, quaternion = self._targets
        position[:], quaternion[:], self._controls[:] = self.hand_init_pos, _UPRIGHT, (-1, 1)
        mujoco.mj_step(self.model, self.data, steps * self.frame_skip)
        self.init_tcp = self.tcp_center

    def _gripper_caging_reward(
        self: Any,
        action: NDArray[np.float32],
        obj_pos: NDArray[np.float64],
        obj_radius: float,
        pad_success_thresh: float,
        object_reach_radius: float,
        xz_thresh: float,
        desired_gripper_effort: float = 1.0,
        high_density: bool = False,
        medium_density: bool = False,
    ) -> float:
        """The package's reward for closing the fingers around an object: its formulas, number by number."""
        if high_density and medium_density:
            raise ValueError("Can only be either high_density or medium_density")
        tolerance, product = fast_rewards().tolerance, fast_rewards().hamacher_product
        (x, y, z), (first_x, first_y, first_z) = obj_pos.tolist(), self.obj_init_pos.tolist()
        tcp = self.tcp_center
        (tcp_x, _, tcp_z), (init_x, _, init_z) = tcp.tolist(), self.init_tcp.tolist()
        sides = []
        for pad in (self._bodies["leftpad"].item(1), self._bodies["rightpad"].item(1)):
            margin = abs(abs(pad - first_y) - pad_success_thresh)
            sides.append(tolerance(abs(pad - y), (obj_radius, pad_success_thresh), margin, "long_tail"))
        margin = _length(first_x - init_x, first_z - init_z) - xz_thresh
        apart = _length(tcp_x - x, tcp_z - z)
        caging = product(product(*sides), tolerance(apart, (0, xz_thresh), margin, "long_tail"))
        # The action stays of single precision, and what it meets becomes so too.
        closed = min(max(0, action[-1]), desired_gripper_effort) / desired_gripper_effort
        both = product(caging, closed if caging > 0.97 else 0.0)
        if high_density:
            both = (both + caging) / 2
        if medium_density:
            margin = abs(norm(self.obj_init_pos - self.init_tcp) - object_reach_radius)
            reach = tolerance(norm(obj_pos - tcp), (0, object_reach_radius), margin, "long_tail")
            both = (both + reach) / 2
        return both


def _length(x: float, y: float) -> float:
    """As numpy computes it."""
    vector = np.array((x, y))
    return math.sqrt(vector.dot(vector))
