"""The pytest plugin. This file is imported in every run of pytest and names the modules that hold it."""

pytest_plugins = (
    "tarot.pytest_plugin.hooks",
    "tarot.pytest_plugin.fixtures",
    "tarot.pytest_plugin.gate",
    "tarot.pytest_plugin.summary",
)
