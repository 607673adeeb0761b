"""The command line `tarot`: one module a group of commands."""
