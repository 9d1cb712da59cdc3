"""The door for people: `forepath COMMAND`. Every error ends in one line and a documented exit code."""

import gc
import os
import sys
from importlib.metadata import version
from typing import Annotated, NoReturn

import typer

from cpdb import ForepathError, LabError, SettingsError, StoreError
from forepath.commands import (
    backtest,
    check,
    db,
    decisions,
    demo,
    forecast,
    init,
    paths,
    pause,
    rehearse,
    report,
    requests,
    run,
    status,
    tls,
    vip,
    web,
    whatif,
)
from forepath.logs import FORMAT_VARIABLE, LEVEL_VARIABLE, LogFormat, LogLevel, set_up_logs
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
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"forepath {version('forepath')}")
        raise typer.Exit


@app.callback()
def set_up(
    log_format: Annotated[
        LogFormat, typer.Option("--log-format", envvar=FORMAT_VARIABLE, help="How a line is written")
    ] = LogFormat.TEXT,
    log_level: Annotated[
        LogLevel, typer.Option("--log-level", envvar=LEVEL_VARIABLE, help="The least that is logged")
    ] = LogLevel.INFO,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit")
    ] = False,
) -> None:
    """Prepares a network and its virtual machines for communication before it happens."""
    # Programs that are started from here log in the same way.
    os.environ |= {FORMAT_VARIABLE: log_format.value, LEVEL_VARIABLE: log_level.value}
    set_up_logs()
    # The command begins: off until now, see `__main__`
    gc.enable()


for command in (
    demo.demo,
    init.init,
    check.check,
    run.run,
    run.predict,
    run.orchestrate,
    run.metrics,
    status.status,
    status.pairs,
    forecast.forecast,
    paths.paths,
    decisions.plan,
    decisions.apply,
    decisions.explain,
    decisions.actions,
    rehearse.rehearse,
    report.report,
    requests.reservations,
    web.web,
    whatif.whatif,
    pause.pause,
    pause.resume,
):
    app.command()(command)
app.add_typer(db.app)
app.add_typer(backtest.app)
app.add_typer(requests.app)
app.add_typer(vip.app)
app.add_typer(tls.app)
if (benches := demo.tool("bench.commands")) is not None:
    app.add_typer(benches.bench)

EXIT_OF: tuple[tuple[type[ForepathError], int], ...] = (
    (SettingsError, EXIT_SETTINGS),
    (StoreError, EXIT_STORE),
    (LabError, EXIT_IMPOSSIBLE),
)


def main() -> None:
    """Runs the command line; never shows a traceback for an error of forepath's own."""
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
