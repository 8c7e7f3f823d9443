"""What a worker is told in order to build its own shard."""

from typing import Any, NamedTuple


class Part(NamedTuple):
    """The part of a learner's tasks that one worker holds.

    Attributes:
        config: gin text of the complete experiment, as `operative_config.gin` holds it.
        first: position of its first task among all.
        size: number of its tasks.
    """

    config: str
    first: int
    size: int

    def build(self) -> Any:
        """Builds the experiment in this process and takes the shard of these tasks.

        Raises:
            UserError: the configuration does not build here.
        """
        from metarl.experiment import gin_front_door

        experiment = gin_front_door.build(gin_front_door.parse((), [self.config]), all_used=False)
        return experiment.learner.make_part(self.first, self.size)
