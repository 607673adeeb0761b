"""`tarot lm-eval`: the command line of lm-evaluation-harness, with the model `tarot` and its tasks."""

import sys

import typer

from tarot.cli.console import out
from tarot.cli.progress import announce
from tarot.errors import TarotError


def lm_eval(context: typer.Context) -> None:
    """Run lm-evaluation-harness' own command line, with the model `tarot` and tarot's tasks."""
    announce("lm-eval")
    from lm_eval._cli import HarnessCLI
    from lm_eval.config.evaluate_config import EvaluatorConfig
    from lm_eval.utils import setup_logging

    from tarot.models.lm_eval_model import leave_processes  # the import registers the model `tarot`
    from tarot.objectives.tasks.task_names import check_include_path, tasks_folder

    sys.argv = ["tarot lm-eval", *context.args]
    setup_logging()
    if not {"-h", "--help"}.isdisjoint(context.args):
        out.print("--model tarot --model_args pretrained=REF[,adapter=DIR]; tarot's tasks are known\n")
    cli = HarnessCLI()
    args = cli.parse_args()
    # An argument that is set here takes precedence over the user's configuration file, so read that first.
    config = EvaluatorConfig.load_yaml_config(args.config) if getattr(args, "config", None) else {}
    if not getattr(args, "device", None):
        args.device = config.get("device") or "auto"  # lm-eval's own default is a GPU, even without one
    if hasattr(args, "include_path"):
        include_path = args.include_path or config.get("include_path") or []
        folders = include_path.split(":") if isinstance(include_path, str) else include_path
        for folder in folders:
            check_include_path(folder)
        args.include_path = [str(tasks_folder()), *folders]
    try:
        cli.execute(args)
    except (TarotError, OSError):
        raise
    except Exception as error:
        raise TarotError(f"lm-eval failed: {type(error).__name__}: {error}", hint="see its log") from error
    leave_processes()
