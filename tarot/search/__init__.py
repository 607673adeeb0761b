"""Maximise a plain callable over the unit cube, within a budget of evaluations."""

import warnings

with warnings.catch_warnings():
    # linear_operator, which BoTorch rests on, is compiled by what torch deprecates: no matter of our users.
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", DeprecationWarning)
    from tarot.search.loop import SearchResult, check_batch, run_search
    from tarot.search.registry import SEARCHES, trial_cost
    from tarot.search.trials import Trial, TrialLog

__all__ = ["SEARCHES", "SearchResult", "Trial", "TrialLog", "check_batch", "run_search", "trial_cost"]
