"""Maximise a plain callable over the unit cube, within a budget of evaluations."""

import warnings

with warnings.catch_warnings():
    # linear_operator, which BoTorch depends on, compiles functions with a deprecated part of torch.
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", DeprecationWarning)
    from tarot.search.loop import SearchResult, run_search
    from tarot.search.registry import SEARCHES, trial_cost
    from tarot.search.trials import Trial, TrialLog

__all__ = ["SEARCHES", "SearchResult", "Trial", "TrialLog", "run_search", "trial_cost"]
