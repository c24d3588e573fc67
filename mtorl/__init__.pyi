from . import agents as agents
from . import datasets as datasets
from . import envs as envs
from . import trainers as trainers
from .envs.collect import collect as collect
from .reports.films import film as film
from .reports.policy_export import export_policy as export_policy
from .reports.run_report import report as report
from .runs.collecting import behavior_policy as behavior_policy
from .runs.evaluations import evaluate as evaluate
from .runs.experiment import Experiment as Experiment
from .runs.metaworld_agent import MetaWorldAgent as MetaWorldAgent
from .runs.player import Player as Player
from .runs.run import Run as Run
from .runs.run import load_policy as load_policy
from .runs.training import train as train

__version__: str

class InputError(ValueError): ...
