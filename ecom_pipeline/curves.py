"""How a training tells what it is doing: figures by step, to whoever watches.

On the lowest floor, so that everything that trains may import it. Knows no TensorBoard and no Dagster: whoever starts
a training brings the watcher; `untracked` watches nothing.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

Watch = Callable[[int, Mapping[str, float]], None]
"""Takes a step, >= 0, and the figures at that step by name, such as {"loss": 0.31}.

Steps count one thing in a run and never fall. A training that goes on after a kill begins with the first step that it
had not kept: what was told from there on is replaced.
"""

Track = Callable[[str, Mapping[str, object]], AbstractContextManager[Watch]]
"""Takes a run's name and its settings; the run's curves are open inside the `with`."""


@contextmanager
def untracked(name: str, settings: Mapping[str, object]) -> Iterator[Watch]:
    """A training that nobody watches: takes the figures of a run and keeps none.

    >>> with untracked("twin", {"learning_rate": 1e-4}) as watch:
    ...     watch(1, {"loss": 0.5})
    """
    yield lambda step, figures: None
