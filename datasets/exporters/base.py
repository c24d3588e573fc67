"""What writes a data set in a form that other projects read."""

from abc import ABC, abstractmethod
from pathlib import Path

from mtorl.datasets.store import EpisodeStore


class Exporter(ABC):
    """Writes data sets of one form. Its constructor's arguments are its options on the command line.

    What it writes appears whole or not at all, nothing that is there is overwritten, and the importer of the same form
    makes the same data set of it again: every value bit for bit, tasks, suite, goals, seeds and card.
    """

    @abstractmethod
    def export(self, store: EpisodeStore) -> Path:
        """Writes a data set, in bounded memory.

        Returns:
            The file or folder that was made.

        Raises:
            InputError: Something is in the way, the form cannot hold these data, or the file system refuses to write.
        """
