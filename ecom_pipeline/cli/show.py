"""Commands that read what a run has made."""

from pathlib import Path
from typing import Annotated

import typer

from ecom_pipeline.cli.app import DEFAULT_HOME, HomeOption, app, enter, finished, tell, writing


@app.command()
def report(home: HomeOption = DEFAULT_HOME) -> None:
    """Print the results of the last run, and where the page lies."""
    enter(home)
    from ecom_pipeline import definitions

    tell(definitions.RESOURCES["home"], definitions.RESOURCES["warehouse"])


@app.command()
def suspects(
    home: HomeOption = DEFAULT_HOME,
    top: Annotated[int, typer.Option(help="How many.", min=1)] = 20,
    csv: Annotated[Path | None, typer.Option(help="Write them to this file instead.")] = None,
) -> None:
    """List the training samples that are most likely mislabelled, with text, label, out-of-fold score and why."""
    from ecom_pipeline import report

    with finished(home, "label_suspicions") as db:
        found = report.suspects(db, top)
    if csv:
        writing(csv, lambda: found.to_csv(csv, index=False))
        print(f"{len(found)} samples: {csv}")
        return
    for row in found.itertuples():
        print(f"{row.wrong_probability:.3f}  {row.sample_id}  label {row.label:g}")
        print(f"       {row.context_text[:110]}\n       -> {row.title[:100]}\n       {row.why}")


@app.command()
def weights(
    export: Annotated[Path, typer.Option(help="Parquet file to write.")],
    home: HomeOption = DEFAULT_HOME,
    estimator: Annotated[
        str, typer.Option(help="Whose weights; not said: those that the model in use was trained with.")
    ] = "",
) -> None:
    """Write the training weights to a Parquet file, with the ids of the pairs."""
    from ecom_pipeline.export import weights_in_use, weights_of, weights_told

    with finished(home, "importance_weights") as db:
        name = estimator or weights_in_use(db, home.expanduser() / "models")
        found, told = weights_of(db, name), weights_told(db, name)
    writing(export, lambda: found.to_parquet(export, index=False))
    print(f"{len(found)} weights {told}: {export}")


@app.command()
def estimators() -> None:
    """List every way to value a sample: its name, what it needs to know, and what it answers."""
    from ecom_pipeline.importance.catalogue import ALL

    for one in ALL:
        answer = (type(one).__doc__ or "").split("\n")[0]
        print(f"{one.name:<28}{', '.join(one.needs) or 'labels alone':<24}{answer}")
