"""The end of a run names the files whose tests take most processor time, which other load on the machine does not change.

Processes that a test has waited for count, those of `processes` do not.
"""

import os
from collections import Counter

import pytest

SHORT = 60  # seconds of a run that needs no such line
_seconds = Counter()
_start = 0.0


def _used():
    return sum(os.times()[:4])


def pytest_runtest_logstart():
    global _start
    _start = _used()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    if call.when == "teardown":
        item.user_properties.append(("processor time", _used() - _start))
    return (yield)


def pytest_runtest_logreport(report):
    """Where the run is summed up: reports come there from all workers."""
    _seconds[report.nodeid.split("::")[0]] += dict(report.user_properties).get("processor time", 0.0)


def pytest_terminal_summary(terminalreporter):
    if _seconds.total() > SHORT:
        most = ", ".join(f"{name} {seconds:.0f}" for name, seconds in _seconds.most_common(5))
        terminalreporter.write_line(f"{_seconds.total():.0f} s of processor time; most in {most}")
