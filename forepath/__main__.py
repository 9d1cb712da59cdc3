"""Lets `python -m forepath` be the same as the console script."""

import gc


def main() -> None:
    """The whole program. What its imports make stays until it ends, so nobody looks for garbage among it."""
    gc.disable()
    from forepath.cli import main as run  # only here, or it would be imported before

    gc.freeze()
    gc.enable()
    run()


if __name__ == "__main__":
    main()
