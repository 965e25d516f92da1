"""The cases of gpu_functions.py."""
