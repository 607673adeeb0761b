"""An edit in the form that other tools load."""

from tarot.exports.peft import from_peft, to_peft

__all__ = ["from_peft", "to_peft"]
