"""Task loading: from names of tasks, groups and tags to lm-eval's task objects."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from lm_eval.api.task import Task
from lm_eval.tasks.manager import TaskDict, TaskManager

from tarot.errors import InvalidValueError, TarotError
from tarot.models.offline import quiet_loggers
from tarot.objectives.tasks.task_code import guard_task_code
from tarot.objectives.tasks.task_names import check_task_names, task_file_stamps, tasks_folder, unknown_task_error


def make_task_manager(names: Iterable[str], include_path: str | Path | None = None) -> TaskManager:
    """Index tarot's tasks and the user's, and lm-eval's own (6 s) only if a name is in neither.

    Raises:
        UnknownName: A name is in none of them.
        TarotError: The folder does not exist, or a name is missing and a file of the folder cannot be read.
    """
    names = list(names)
    check_task_names(names, include_path)
    paths = (str(tasks_folder()), *([] if include_path is None else [str(include_path)]))
    stamps = tuple(stamp for folder in paths for stamp in task_file_stamps(Path(folder).absolute()))
    manager = _index(paths, stamps, False)
    if not set(names) <= set(manager.all_tasks):
        manager = _index(paths, stamps, True)
    for name in names:
        if name not in manager.all_tasks:
            raise unknown_task_error(name, [], manager.all_tasks)
    return manager


@lru_cache(maxsize=4)
def _index(paths: tuple[str, ...], stamps: tuple[tuple[Path, int, int], ...], include_defaults: bool) -> TaskManager:
    """Index the tasks in `paths`, and lm-eval's own; `stamps` change when a file in `paths` does."""
    return TaskManager(include_path=list(paths), include_defaults=include_defaults)


def load_tasks(names: Sequence[str], include_path: str | Path | None = None) -> TaskDict:
    """Load tasks, resolving groups and tags into their members.

    Returns:
        lm-eval's selection; its entry "tasks" holds the task objects by name.

    Raises:
        UnknownName: No task, group or tag has one of the names.
        TarotError: The data of a task cannot be loaded; the message has the loader's reason.

    Example:
        >>> sorted(load_tasks(["tarot_synthetic"])["tasks"])
        ['synth_color', 'synth_implicatives', 'synth_navigate']
    """
    manager = make_task_manager(names, include_path)
    try:
        with quiet_loggers("lm_eval.api.task"):  # lm-eval warns about the arguments of every custom data set
            selected = manager.load(list(names))
    # Loading runs templates, loaders and hub clients, which can raise anything.
    except (Exception, SystemExit) as error:
        reason = str(error).strip().splitlines()
        if reason and reason[0].startswith("expected "):
            raise TarotError(reason[0]) from error  # by a task file, which cannot import TarotError
        raise TarotError(
            f"a task file and data that lm-eval can load for {', '.join(names)}",
            f"{type(error).__name__}: {reason[0] if reason else 'no message'}",
            "check the task file, the network, or name a local copy with TAROT_DATA",
        ) from error
    for task in selected["tasks"].values():
        guard_task_code(task)
    return selected


def load_task(name: str, include_path: str | Path | None = None) -> Task:
    """Load one task.

    Raises:
        UnknownName: No task has the name.
        TarotError: The name is that of a group or tag, or the task's data cannot be loaded.

    Example:
        >>> load_task("synth_color").OUTPUT_TYPE
        'multiple_choice'
    """
    tasks = load_tasks([name], include_path)["tasks"]
    if len(tasks) != 1:
        hint = f"choose one of {', '.join(sorted(tasks))}"
        raise InvalidValueError(f"{name!r} is a group of tasks, not a task.", hint=hint)
    return next(iter(tasks.values()))
