"""The command line: ``fedgc run CONFIG.toml``, ``fedgc report DIR``, ``fedgc plan FLEET`` and ``fedgc analyze``."""

from __future__ import annotations

import sys
from typing import Annotated

import click
import typer

from fedgc import __version__, commands
from fedgc.errors import ConfigError, ExperimentError, RunInterruptedError

app = typer.Typer(
    help="Federated training that does not wait for stragglers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"fedgc {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


app.command()(commands.run)
app.command()(commands.analyze)
app.command()(commands.plan)
app.command()(commands.report)

#: The exit code that typer makes of an interrupt, and that shells know.
_INTERRUPTED = 130


def main() -> None:
    """Run the command line; a wrong configuration ends with one line and exit code 2."""
    try:
        # Not in typer's standalone mode, which would swallow the interrupt.
        code = app(standalone_mode=False)
        if code == _INTERRUPTED:
            raise KeyboardInterrupt
        sys.exit(code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except ConfigError as error:
        typer.echo(f"fedgc: {' '.join(str(error).split())}", err=True)
        sys.exit(2)
    except (OSError, ExperimentError) as error:
        typer.echo(f"fedgc: {' '.join(str(error).split())}", err=True)
        sys.exit(1)
    except RunInterruptedError as error:
        typer.echo(f"fedgc: interrupted, {error}", err=True)
        sys.exit(_INTERRUPTED)
    except (KeyboardInterrupt, click.Abort):
        typer.echo("fedgc: interrupted, no results were written", err=True)
        sys.exit(_INTERRUPTED)
