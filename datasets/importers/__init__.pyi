from .base import Contents as Contents
from .base import Importer as Importer
from .d4rl import D4RL as D4RL
from .harmodt import HarmoDT as HarmoDT
from .lerobot import LeRobot as LeRobot
from .minari import Minari as Minari
from .npz import Npz as Npz
