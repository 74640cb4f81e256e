"""`ecom experiment`: what an experiment showed, or could show."""

from typing import Annotated

import typer

from ecom_pipeline.cli.app import DEFAULT_HOME, HomeOption, app, enter, finished


@app.command()
def experiment(
    name: Annotated[str, typer.Argument(help="As experiments.yaml of the home has it.")],
    home: HomeOption = DEFAULT_HOME,
    plan: Annotated[
        bool, typer.Option("--plan", help="Before the start: how many units will come, and what effect could be seen.")
    ] = False,
) -> None:
    """Print what an experiment has shown: sample ratio, balance, effects with intervals for one look and for any."""
    enter(home)
    from ecom_pipeline import definitions
    from ecom_pipeline.experiments import power
    from ecom_pipeline.experiments.plan import named, read_experiments
    from ecom_pipeline.experiments.readings import read_experiment
    from ecom_pipeline.report.experiments import readout_lines

    with finished(home, "exposures") as db:
        asked = named(read_experiments(definitions.HOME.experiments), name)
        if plan:
            told = power.plan(db, asked)
            print(
                f"{name}: as from {told.first_day} to {told.last_day}\n"
                f"  units            {told.n_units:>10,}\n"
                f"  revenue a unit   {told.revenue:>10.4g}; 1 % of the units have {told.tail_share:.0%} of it\n"
                f"  own past explains{told.explained:>10.0%} of the variance\n"
                f"  an effect of     {told.smallest:>+10.1%} on revenue is found in {power.POWER:.0%} of the cases "
                f"({told.smallest_unadjusted:+.1%} without the past)"
            )
            return
        found = read_experiment(db, asked)
    print("\n".join([found.verdict, *(f"mind: {warning}" for warning in found.warnings), ""]))
    print(f"sample ratio: p = {found.sample_ratio_p:.3g}")
    print("\n".join(readout_lines(found.rows)))
