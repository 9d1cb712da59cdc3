"""The door for people: `forepath COMMAND`. Every error ends in one line and a documented exit code."""

import logging
import sys
from typing import NoReturn

import structlog
import typer

from cpdb import ForepathError, LabError, SettingsError, StoreError
from forepath.commands import (
    backtest,
    check,
    db,
    decisions,
    demo,
    forecast,
    paths,
    pause,
    report,
    requests,
    run,
    status,
    vip,
)
from forepath.output import (
    EXIT_CODES,
    EXIT_FAILED,
    EXIT_IMPOSSIBLE,
    EXIT_INTERRUPTED,
    EXIT_SETTINGS,
    EXIT_STORE,
    errors,
)

app = typer.Typer(
    help="Prepares a network and its virtual machines for communication before it happens.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    demo.demo,
    check.check,
    run.run,
    run.predict,
    run.orchestrate,
    status.status,
    status.pairs,
    forecast.forecast,
    paths.paths,
    decisions.plan,
    decisions.apply,
    decisions.explain,
    decisions.actions,
    report.report,
    requests.reservations,
    pause.pause,
    pause.resume,
):
    app.command()(command)
app.add_typer(db.app)
app.add_typer(backtest.app)
app.add_typer(requests.app)
app.add_typer(vip.app)
if (benches := demo.tool("bench.commands")) is not None:
    app.add_typer(benches.bench)

EXIT_OF: tuple[tuple[type[ForepathError], int], ...] = (
    (SettingsError, EXIT_SETTINGS),
    (StoreError, EXIT_STORE),
    (LabError, EXIT_IMPOSSIBLE),
)


def main() -> None:
    """Runs the command line; never shows a traceback for an error of forepath's own."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    try:
        app()
    except ForepathError as error:
        _end(str(error), next((code for kind, code in EXIT_OF if isinstance(error, kind)), EXIT_FAILED))
    except OSError as error:
        # A full disk, a folder that may not be written: the system's own words say it best.
        _end(str(error), EXIT_FAILED)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


def _end(text: str, code: int) -> NoReturn:
    errors.print(f"forepath: {text}", style="red", highlight=False, markup=False, soft_wrap=True)
    sys.exit(code)
