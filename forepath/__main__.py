"""Lets `python -m forepath` be the same as the console script."""

import gc


def main() -> None:
    """The whole program. What it is made of stays until it ends: before and after its command nobody looks for garbage.

    Meanwhile somebody does, or long replays take a tenth more.
    """
    gc.disable()
    from forepath.cli import main as run  # only here, or it would be imported before

    try:
        run()
    finally:
        gc.freeze()


if __name__ == "__main__":
    main()
