"""`ecom serve`: the published model answers over HTTP; `ecom keys`: who may ask."""

import os
from pathlib import Path
from typing import Annotated

import typer
from threadpoolctl import threadpool_limits

from ecom_pipeline.cli.app import DEFAULT_HOME, HomeOption, app, enter
from ecom_pipeline.errors import InputError

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
keys = typer.Typer(no_args_is_help=True, help="Make, list and revoke the keys of the service.")
app.add_typer(keys, name="keys")


@app.command()
def serve(
    home: HomeOption = DEFAULT_HOME,
    host: Annotated[str, typer.Option(help="Address to listen on; only on loopback without keys.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any that is free.", min=0, max=65535)] = 8000,
    cors: Annotated[
        list[str] | None, typer.Option(help="Origin of a page elsewhere that may call; again for more.")
    ] = None,
    rate: Annotated[int, typer.Option(help="Requests a second, of one key or address, at most.", min=1)] = 200,
    look: Annotated[float, typer.Option(help="Seconds between looks for another publication.", min=0.1)] = 2.0,
) -> None:
    """Serve the published model: search, lists, weights, events, and a page for people at /."""
    enter(home)
    from ecom_pipeline import definitions
    from ecom_pipeline.service.keys import read_keys
    from resources.private import keep_private
    from resources.writer import served

    settled = definitions.HOME
    open_to_all = not read_keys(settled.key_file)
    if open_to_all and host not in _LOOPBACK:
        raise InputError(
            f"--host: 1 address is not of this machine alone: {host!r}, and 0 keys are made. Whoever reaches the service must "
            "bring a key: make one by `ecom keys add NAME`, or leave the address at 127.0.0.1."
        )
    keep_private(settled.folder)

    # answers are made side by side: more threads in each would wait for each other
    os.environ["OMP_NUM_THREADS"] = "1"
    threadpool_limits(1)
    import uvicorn

    from ecom_pipeline.service.app import House, make_app
    from ecom_pipeline.service.gate import Gate
    from ecom_pipeline.service.guards import Limits
    from ecom_pipeline.service.journal.appending import Journal
    from ecom_pipeline.service.serving import Serving
    from ecom_pipeline.service.trials import Trials
    from ecom_pipeline.sources.forgotten import read_forgotten

    with served(settled.folder):
        hash_key = definitions.hash_key_of(settled)
        read_forgotten(settled.forgotten, hash_key)  # a key under which they are not known is told at once
        serving = Serving(settled.published, Journal(definitions.journal_of(settled)))
        serving.watch(look)
        house = House(
            serving=serving,
            hash_key=hash_key,
            gate=Gate(settled.forgotten, hash_key),
            keys=None if open_to_all else settled.key_file,
            trials=Trials(settled.experiments, serving.journal),
            limits=Limits(per_second=rate),
            origins=tuple(cors or ()),
        )
        try:
            uvicorn.run(
                make_app(house), host=host, port=port, log_level="warning", access_log=False, server_header=False
            )
        finally:
            serving.close()


def _file(home: Path) -> Path:
    enter(home)
    from ecom_pipeline import definitions

    return definitions.HOME.key_file


@keys.command()
def add(
    name: Annotated[str, typer.Argument(help="Whose it is.")],
    home: HomeOption = DEFAULT_HOME,
    scope: Annotated[
        list[str] | None, typer.Option(help="read, events or label; again for more. Not said: all.")
    ] = None,
) -> None:
    """Make a key, and print it once; only its hash is kept."""
    from ecom_pipeline.service.keys import SCOPES, add_key

    print(add_key(_file(home), name, scope or SCOPES))


@keys.command(name="list")
def list_keys(home: HomeOption = DEFAULT_HOME) -> None:
    """List the keys: name, scopes, when each was made."""
    from ecom_pipeline.service.keys import read_keys

    for key in read_keys(_file(home)):
        print(f"{key.name:<24}{','.join(key.scopes):<24}{key.made_at}")


@keys.command()
def revoke(name: Annotated[str, typer.Argument(help="Which.")], home: HomeOption = DEFAULT_HOME) -> None:
    """Make a key worthless, from the next request on."""
    from ecom_pipeline.service.keys import revoke_key

    revoke_key(_file(home), name)
