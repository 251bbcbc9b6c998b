"""The `perdure` command."""

from __future__ import annotations

import asyncio
import logging
import sys
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated, Optional

import typer

from perdure.cli.console import Console
from perdure.cli.errors import UsageError
from perdure.errors import ManifestError, PerdureError
from perdure.local.errors import LocalError
from perdure.local.state import NAMESPACE

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain text: it reads the same in a narrow terminal, a pipe and a log
)


Redis = Annotated[
    Optional[str],  # noqa: UP045 - typer reads it at run time
    typer.Option(
        help="URL of the Redis that keeps the state, instead of an embedded one.",
        envvar="PERDURE_REDIS",
        metavar="URL",
    ),
]
Namespace = Annotated[str, typer.Option(help="The Kubernetes namespace of the run; 'local' is this machine.")]

Dir = Annotated[Path, typer.Option(help="Where the runs of this machine are kept.", show_default=True)]
RunName = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        show_default=False,
        help="A run's name on this machine; with --redis, also the uid of a WorkflowRun or the run_id of a program.",
    ),
]


@app.callback()
def perdure() -> None:
    """Durable Python workflows: on this machine as on a cluster.

    Begin with `perdure run file.py:MyWorkflow`. Runs are kept in .perdure/ of the present folder,
    or in the Redis of --redis.

    \b
    Exit status of every command:
      0    done; for run: the workflow completed
      1    for run: it ended otherwise; else the store failed or refused
      2    the command, the manifest, the input or the --redis URL is wrong
      130  interrupted by Ctrl-C; the same `perdure run` resumes it
    """


@app.command()
def run(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            show_default=False,
            help="A WorkflowRun manifest, package.module:NAME or file.py:NAME; NAME is a Workflow class, an"
            " instance, or a function that returns one.",
        ),
    ],
    input: Annotated[
        Optional[str],  # noqa: UP045 - typer reads it at run time
        typer.Option(
            metavar="JSON", help="The StartEvent's fields: JSON, or @FILE; over those of the manifest."
        ),
    ] = None,
    name: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The run's name; an unfinished run of that name is resumed."),
    ] = None,
    redis: Redis = None,
    new: Annotated[bool, typer.Option("--new", help="Abandon an unfinished run of that name.")] = False,
    kill_runner: Annotated[
        bool,
        typer.Option(
            "--kill-runner", help="Kill the runner once after a random commit, to see it taken over."
        ),
    ] = False,
    dir: Dir = Path(".perdure"),
) -> None:
    """Run a workflow, or resume it where it was interrupted.

    It survives the death of its process: every state change is committed before its effects show.
    The same command resumes a run that was interrupted; one that has ended begins anew.

    \b
    Exit status:
      0    completed; the result is the last thing told, before the figures
      1    ended otherwise: a step failed, it timed out, was cancelled, lost its state
      2    something in the command, the manifest or the input is wrong: nothing ran
      130  interrupted by Ctrl-C (143 by SIGTERM, 129 by SIGHUP, 141 when nobody
           reads its output any more); the same command resumes it
    """
    from perdure.cli.run import Options, execute
    from perdure.cli.target import read_target

    console = Console()
    options = Options(
        target=read_target(target, name=name, given_input=input),
        folder=dir,
        redis_url=redis,
        fresh=new,
        kill_runner=kill_runner,
    )
    raise typer.Exit(execute(options, console))


@app.command("list")
def list_(dir: Dir = Path(".perdure")) -> None:
    """List the runs of this machine, and how far they are.

    Interrupted: nobody runs it, and `perdure run` resumes it.
    """
    from perdure.cli.listing import show_all

    show_all(dir)


@app.command()
def get(
    run: Annotated[str, typer.Argument(metavar="RUN", show_default=False)], dir: Dir = Path(".perdure")
) -> None:
    """Print a run of this machine as YAML, with its result."""
    from perdure.cli.listing import resource

    typer.echo(resource(run, dir), nl=False)


@app.command()
def history(
    run: RunName,
    redis: Redis = None,
    namespace: Namespace = NAMESPACE,
    json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
    dir: Dir = Path(".perdure"),
) -> None:
    """Tell what happened in a run, commit by commit.

    Each step, try, event and write, with when it was committed and by which epoch. What came before the
    last snapshot is summed up in one line. Values are not shown.
    Piped, the columns are separated by tabs.
    """
    from perdure.cli.history import show

    asyncio.run(show(run, dir, redis, namespace, as_json=json))


@app.command()
def send(
    run: RunName,
    event_type: Annotated[
        str,
        typer.Argument(
            metavar="TYPE", help="The event's class: its name, or package.module.Name if that is ambiguous."
        ),
    ],
    fields: Annotated[str, typer.Argument(help="The event's fields: JSON, or @FILE.", metavar="JSON")] = "{}",
    id: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Your id for this event: sent again with the same one, it is taken only once."),
    ] = None,
    redis: Redis = None,
    namespace: Namespace = NAMESPACE,
    dir: Dir = Path(".perdure"),
) -> None:
    """Send an event to a run, under way or interrupted.

    It is taken when the run next renews its lease, within a third of `leaseSeconds`, or when it is
    resumed. One that the workflow doesn't know is refused by its runner, which says so in its log.

    \b
    Exit status:
      0    sent, or taken before
      1    the inbox is full
      2    there is no such run, or it has ended
    """
    from perdure.cli.send import send

    typer.echo(asyncio.run(send(run, event_type, fields, dir, redis, namespace, event_id=id)))


@app.command()
def export(
    run: RunName,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Where to write it; must not exist.", show_default=False)
    ],
    redis: Redis = None,
    namespace: Namespace = NAMESPACE,
    dir: Dir = Path(".perdure"),
) -> None:
    """Write a run's whole state to a file: a backup, a bug report.

    A live run goes on meanwhile; the file has it as it was between two commits. It holds the run's input, events and state: mind to whom you give it.
    """
    from perdure.cli.backup import export

    _tell(export(run, file, dir, redis, namespace))


@app.command("import")
def import_(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="What `perdure export` wrote.", show_default=False)
    ],
    name: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The new run's name, if not that of the exported one."),
    ] = None,
    target: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="What it runs, as for `perdure run`: needed where the file comes from a cluster or a program."
        ),
    ] = None,
    restore: Annotated[
        bool,
        typer.Option(
            "--restore", help="Put it back under its old namespace and uid, into the Redis of --redis."
        ),
    ] = False,
    redis: Redis = None,
    dir: Dir = Path(".perdure"),
) -> None:
    """Make a run from an exported file; `perdure run` resumes it.

    It gets a uid of its own: what the exported run does from here on and what this one does are two.
    Nothing that is there is overwritten.
    """
    from perdure.cli.backup import bring_in
    from perdure.cli.backup import restore as put_back
    from perdure.cli.target import read_target

    if restore:
        if redis is None:
            raise UsageError("--restore needs the --redis URL of the store that lost the run")
        if name is not None or target is not None:
            raise UsageError("--restore puts the run back as it was: leave --name and --target out")
        _tell(put_back(file, redis))
        return
    read = read_target(target, name=name, given_input=None) if target is not None else None
    _tell(bring_in(file, dir, redis, name=name, target=read))


@app.command()
def doctor(
    redis: Redis = None,
    namespace: Namespace = NAMESPACE,
) -> None:
    """Tell whether runs can live in a Redis, and what it may lose.

    Without --redis it looks at the one that `perdure run` would start.

    \b
    Exit status:
      0    runs can live there (what may be lost is told)
      1    they can't
      2    nobody answers there
    """
    from perdure.cli.doctor import examine

    raise typer.Exit(examine(redis, namespace, Console()))


@app.command()
def version() -> None:
    """Print the installed version."""
    typer.echo(installed_version("perdure"))


def _tell(lines: list[str]) -> None:
    for line in lines:
        typer.echo(line)


def main() -> None:
    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    try:
        app(prog_name="perdure")
    except (UsageError, ManifestError, LocalError) as error:
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except PerdureError as error:
        print(f"Error: {type(error).__name__}: {error}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
