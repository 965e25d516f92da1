"""`make bench`: this machine beside SciPy, PyTorch, JAX and SLICOT, in one run.

cases/      what is measured, one file for each group; a case is a few lines
case.py     what a case is, and how two answers are compared
peers.py    the libraries beside which matsign is measured, and which of them are installed
timing.py   how the time of two functions is compared
machine.py  the machine, the versions and the threads that figures depend on
store.py    the file of figures, which a later run continues
page.py     the page made of it (markup.py, page.css)
run.py      a run: checks and measures each case, and writes both
__main__.py the command line
"""
