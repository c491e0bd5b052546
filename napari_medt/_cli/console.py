"""How the shell speaks: sentences instead of tracebacks, a progress bar, and Ctrl-C as a polite request to stop."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from napari_medt.core import AmbiguousImage, Cancel, Cancelled, MedtError, Progress

# Long paths and sentences stay whole: the terminal wraps them, and a pipe gets them as one line.
out = Console(soft_wrap=True)
errors = Console(stderr=True, soft_wrap=True)


def say_error(sentence: str) -> None:
    """Print one sentence, marked as an error, on the error stream."""
    errors.print(f"[bold red]Error:[/] {escape(sentence)}", highlight=False)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn our errors into one sentence and exit code 2 (130 when the user interrupted)."""
    try:
        yield
    except Cancelled as error:
        errors.print(escape(str(error)), highlight=False)
        raise typer.Exit(130) from None
    except AmbiguousImage as error:
        say_error(f"{error.what}; add one of these:")
        for choice in error.choices:
            errors.print(f"  --choose {shlex.quote(choice.key)}   {choice.title}", highlight=False, markup=False)
        raise typer.Exit(2) from None
    except MedtError as error:
        say_error(str(error))
        raise typer.Exit(2) from None


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Give a `Progress` that draws a bar on the error stream; nothing is drawn where nobody looks."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def report(done: int, total: int, message: str = "", /) -> None:
            bar.update(task, completed=done, total=total, description=escape(message))

        yield report


@contextmanager
def stop_on_interrupt() -> Iterator[Cancel]:
    """Give a `Cancel` that the first Ctrl-C sets; a second Ctrl-C stops at once."""
    cancel = Cancel()

    def ask_to_stop(number: int, frame: FrameType | None) -> None:
        if cancel.is_set():
            raise KeyboardInterrupt
        errors.print("Stopping after this step; press Ctrl-C again to stop at once.", highlight=False)
        cancel.set()

    # What batch systems and `timeout` send is as polite a request as Ctrl-C, and must leave as little behind.
    previous = {number: signal.signal(number, ask_to_stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield cancel
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
