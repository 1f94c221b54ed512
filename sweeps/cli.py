"""`main`: from the command line to the answer, the same for every sweep script."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import textwrap
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NoReturn

from rich.console import Console
from rich.markup import escape

from analysis.store import without_secrets
from sweeps.question.command import CommandLine, spread, words_of
from sweeps.question.options import Options
from sweeps.question.sweep import Sweep, check_sweep
from sweeps.result import SOME_FAILED, Result
from sweeps.runner import StoppedError, asking, exit_status
from workloads.blame import OwnCodeError
from workloads.console import open_console, parse
from workloads.errors import InputError


def main(sweep: Sweep, arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs a sweep as its command line says, and exits.

    Exit status: 0 when every trial asked for has its answer; 1 when some failed, or the sweep could not go on; 2 for
    bad input, before anything starts; 130 when interrupted: the same command goes on.

    Args:
        sweep: What to ask.
        arguments: The command line; None takes the process's own.
    """
    console, complaints = open_console(), open_console(stderr=True)
    line = CommandLine(words_of(arguments))
    try:
        with _terminable(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what libraries warn about among themselves is nothing the user can mend
            check_sweep(sweep)
            status = carry_out(sweep, _options(sweep, line.words), console, line)
    except KeyboardInterrupt as interrupt:
        complaints.print(f"interrupted; {line.goes_on()}")
        status = exit_status(interrupt)
    except BrokenPipeError:  # `... | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        complaints.print(f"stopped: the output was closed; {line.goes_on()}")
        status = SOME_FAILED
    except (StoppedError, InputError) as error:
        word = "stopped" if isinstance(error, StoppedError) else "error"
        if isinstance(error, OwnCodeError) and error.__cause__ is not None and "--traceback" in line.words:
            complaints.print("".join(traceback.format_exception(error.__cause__)), markup=False)
        complaints.print(f"[red]{word}:[/red] {escape(without_secrets(' '.join(str(error).split())))}")
        status = exit_status(error)
    except Exception as error:  # noqa: BLE001 - a fault of ours, whatever it is, is shown whole
        complaints.print(without_secrets(traceback.format_exc()), markup=False)
        complaints.print(f"This is a bug in forksweep. Everything stored is still valid; {line.goes_on()}")
        status = exit_status(error)
    sys.exit(status)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Lets SIGTERM end a sweep as Ctrl-C does, whatever it is at."""

    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _options(sweep: Sweep, words: Sequence[str]) -> Options:
    """Returns the options of a command line.

    Raises:
        InputError: It is not understood.
    """
    return parse(
        Options,
        spread(words),
        default=sweep.default_options(),
        description=sweep.question,
    )


def carry_out(sweep: Sweep, options: Options, console: Console, line: CommandLine | None = None) -> int:
    """Runs a sweep, prints what there is to say, and returns the exit status of `main`.

    Args:
        sweep: What to ask.
        options: How.
        console: Where to print.
        line: The command line that says so.

    Raises:
        InputError: As `sweeps.runner.run`.
        StoppedError: The sweep could not go on.
    """
    line = line or CommandLine()
    with asking(sweep, options, line, console) as asked:
        asked.show_lines()
        if options.plan:
            return 0
        result = asked.answer()
        asked.show_end(result)
        if not result.interrupted:
            _print(result, console)
        return result.exit_status


def _print(result: Result, console: Console) -> None:
    """Prints what came out."""
    # Imported while Ray ended, if anything was trained: only once there is something to show.
    from analysis.report import print_report

    print_report(result.report, console)
    if failed := sum(result.failures.values()):
        console.print(f"\n[red]{failed:,} of {len(result.spec.trials):,} trials failed:[/red]")
        for reason, count in Counter(result.failures).most_common(_MOST_REASONS):
            console.print(f"  {count:,} x {escape(textwrap.shorten(reason, 200))}")
    if result.counts["cancelled"]:
        console.print(f"{result.counts['cancelled']:,} trials were cancelled; the same command runs them")


_MOST_REASONS = 5
"""Why trials failed: printed up to that many; all are in the report."""
