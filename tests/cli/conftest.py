"""For these tests the command line is built once: typer builds all commands at every call, which takes most of its time."""

import functools

from typer import testing

testing._get_command = functools.cache(testing._get_command)
