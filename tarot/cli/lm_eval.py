"""`tarot lm-eval`: the command line of lm-evaluation-harness, with the model `tarot` and its tasks."""

import sys

import typer

from tarot.cli.console import out
from tarot.errors import TarotError


def lm_eval(context: typer.Context) -> None:
    """lm-evaluation-harness' own command line, with the model `tarot` and our tasks."""
    from lm_eval._cli import HarnessCLI
    from lm_eval.config.evaluate_config import EvaluatorConfig
    from lm_eval.utils import setup_logging

    from tarot.models import lm_eval_model as harness  # registers the model `tarot`
    from tarot.objectives.task_names import check_include_path, tasks_folder

    sys.argv = ["tarot lm-eval", *context.args]
    setup_logging()
    if not {"-h", "--help"}.isdisjoint(context.args):
        out.print("--model tarot --model_args pretrained=REF[,adapter=DIR]; tarot's tasks are known\n", markup=False)
    cli = HarnessCLI()
    args = cli.parse_args()
    # What is set here would hide what the user's file says.
    file = EvaluatorConfig.load_yaml_config(args.config) if getattr(args, "config", None) else {}
    if not getattr(args, "device", None):
        args.device = file.get("device") or "auto"  # lm-eval's own default is a GPU, there or not
    if hasattr(args, "include_path"):
        theirs = args.include_path or file.get("include_path") or []
        folders = theirs.split(":") if isinstance(theirs, str) else theirs
        for folder in folders:
            check_include_path(folder)
        args.include_path = [str(tasks_folder()), *folders]
    try:
        cli.execute(args)
    except (TarotError, OSError):
        raise
    except Exception as error:
        raise TarotError("lm-eval to finish", f"{type(error).__name__}: {error}", "its log says more") from error
    harness.leave_processes()
