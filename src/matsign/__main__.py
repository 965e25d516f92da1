"""``python -m matsign``: the command line, where the script ``matsign`` is not on the path."""

from matsign.cli.app import main

if __name__ == "__main__":
    main()
