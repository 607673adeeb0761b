"""The pytest plugin: names the modules that pytest loads for it.

pytest imports these modules in every run of an environment that tarot is installed in, so none of them imports torch
before a test uses a fixture.
"""

pytest_plugins = (
    "tarot.pytest_plugin.hooks",
    "tarot.pytest_plugin.fixtures",
    "tarot.pytest_plugin.gate",
    "tarot.pytest_plugin.summary",
)
