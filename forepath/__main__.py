"""Lets `python -m forepath` be the same as the console script."""

from forepath.cli import main

main()
