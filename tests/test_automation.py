import shutil
from datetime import UTC, datetime

import dagster as dg
import pytest
from shop import write_csv

from assets.automation import nightly_refresh, refresh, refresh_goes_on, source_changed
from assets.machines import run_tags
from assets.prepare import DAYS
from assets.refresh import CATALOGUE
from ecom_pipeline.definitions import defs
from ecom_pipeline.errors import InputError
from ecom_pipeline.schema.inputs import OFFERS
from ecom_pipeline.watching.figures import FAMILIES
from resources.cluster import Cluster
from resources.compute import Compute
from resources.home import Home
from resources.tracking import Tracking
from resources.warehouse import Warehouse

# what is made of cleaned days and waits for nothing else
SALES = {"experiment_readout", "audiences", "audience_evaluation"}


@pytest.fixture
def resources(shop, tmp_path):
    home = tmp_path / "home"
    return {
        "home": Home(path=str(home), asked_source=str(shop.folder)),
        "warehouse": Warehouse(path=str(home / "warehouse.duckdb")),
        "compute": Compute(device="cpu"),
        "cluster": Cluster(),
        "tracking": Tracking(path=str(home / "curves"), backend="none"),
    }


def ask(instance, resources):
    with dg.build_sensor_context(instance, resources=resources) as context:
        return source_changed(context)


def execute(instance, resources, request):
    job = dg.Definitions(
        assets=defs.assets, asset_checks=defs.asset_checks, resources=resources
    ).resolve_implicit_global_asset_job_def()
    return job.execute_in_process(
        instance=instance, asset_selection=request.asset_selection, run_config=request.run_config, tags=request.tags
    )


def names(request):
    return {key.to_user_string() for key in request.asset_selection}


def test_on_kubernetes_a_run_asks_for_the_pod_that_its_assets_need(resources, monkeypatch):
    with dg.instance_for_test() as instance:
        assert "dagster-k8s/config" not in ask(instance, resources).tags
        monkeypatch.setenv("ECOM_PODS", "run")
        asked = ask(instance, resources)
    assert asked.tags["dagster-k8s/config"] == run_tags("run", names(asked))["dagster-k8s/config"]


def test_what_runs_by_itself_has_the_settings_of_the_file_that_commands_read(resources, tmp_path, monkeypatch):
    file = tmp_path / "settings.yaml"
    file.write_text("ops: {raw_items: {config: {}}, items: {config: {}}, drift: {config: {threshold: 6}}}")
    with dg.instance_for_test() as instance:
        plain = ask(instance, resources)
        monkeypatch.setenv("ECOM_CONFIG", str(file))
        asked = ask(instance, resources)
        monkeypatch.setenv("ECOM_CONFIG", str(tmp_path / "none.yaml"))
        with pytest.raises(InputError, match="1 file is missing"):
            ask(instance, resources)
        monkeypatch.setenv("ECOM_CONFIG", str(file))
        good = file.read_text()
        for wrong, told in (
            ("ops:", "1 parts of `ops`"),
            ("ops: {items: }", "first: 'items'"),
            ("a: b: c", "is no YAML"),
        ):
            file.write_text(wrong)
            with pytest.raises(InputError, match=told):
                ask(instance, resources)
        file.write_text(good)
    assert (plain.run_config, plain.asset_selection) == ({"ops": {}}, asked.asset_selection)
    assert asked.run_config["ops"].keys() == {"raw_items", "items"} & names(asked)
    assert asked.run_key != plain.run_key


def test_the_sensor_asks_for_the_source_first_and_then_for_its_days_and_what_is_made_of_them(resources):
    with dg.instance_for_test() as instance:
        first = ask(instance, resources)
        assert names(first) == {asset.to_user_string() for one in CATALOGUE for asset in one.keys}
        assert execute(instance, resources, first).success
        second = ask(instance, resources)
    # what lies below is asked for when it is known whether the samples have changed
    assert names(second) == {"cleaned_interactions", "rejected_rows", "training_samples", *SALES}
    assert second.tags["dagster/asset_partition_range_start"] == "2024-05-01"
    assert second.tags["dagster/asset_partition_range_end"] == "2024-05-10"
    assert first.run_key != second.run_key


def test_the_same_state_is_asked_for_under_the_same_key(resources):
    with dg.instance_for_test() as instance:
        assert ask(instance, resources).run_key == ask(instance, resources).run_key


def test_a_source_that_is_broken_does_not_break_what_was_there(resources, shop, tmp_path):
    with dg.instance_for_test() as instance:
        assert execute(instance, resources, ask(instance, resources)).success
        before = resources["warehouse"].read("select count(*) as n from raw_events").n[0]
        write_csv(tmp_path / "items.csv", [{"item_id": "a", "title": "A"}])
        write_csv(tmp_path / "events.csv", [{"occurred_at": "2024-01-01", "action": "click"}])
        broken = {**resources, "home": Home(path=resources["home"].path, asked_source=str(tmp_path))}
        with pytest.raises(Exception, match="2 required columns are missing in "):
            execute(instance, broken, ask(instance, broken))
        assert resources["warehouse"].read("select count(*) as n from raw_events").n[0] == before


def test_schedule_and_sensors_share_one_plan(resources):
    """What the night asks for, a part that is done asks to go on with; where nothing is stale, both are silent."""
    assert nightly_refresh.cron_schedule == "0 2 * * *"
    with dg.instance_for_test() as instance:
        at_night = dg.build_schedule_context(
            instance=instance, scheduled_execution_time=datetime(2024, 5, 6, 2, tzinfo=UTC), resources=resources
        )
        with at_night:
            first = nightly_refresh(at_night)
        assert first == ask(instance, resources)
        result = execute(instance, resources, first)
        event = next(e for e in result.all_events if e.event_type_value == "PIPELINE_SUCCESS")
        done = dg.build_run_status_sensor_context(
            "refresh_goes_on",
            dagster_event=event,
            dagster_instance=instance,
            dagster_run=result.dagster_run,
            resources=resources,
        )
        with done:
            assert refresh_goes_on(done) == ask(instance, resources)
            assert names(refresh_goes_on(done)) == {"cleaned_interactions", "rejected_rows", "training_samples", *SALES}
    assert {nightly_refresh.job_name, source_changed.job_name, refresh_goes_on.job.name} == {refresh.name}


def test_a_new_day_and_a_late_event_cost_their_days(resources, shop, tmp_path):
    """Files read, rows read and days cleaned are counted: those of what came, and no more."""
    folder = tmp_path / "shop"
    shutil.copytree(shop.folder, folder)
    resources = {**resources, "home": Home(path=resources["home"].path, asked_source=str(folder))}
    with dg.instance_for_test() as instance:
        for _ in range(2):
            assert execute(instance, resources, ask(instance, resources)).success
        times = ("2024-05-02T10:00:00Z", "2024-05-11T10:00:00Z")
        rows = [
            {
                "event_id": f"new{n}",
                "occurred_at": time,
                "user_id": "p",
                "session_id": "z",
                "action": "click",
                "item_id": "i0-0-0",
            }
            for n, time in enumerate(times)
        ]
        write_csv(folder / "events-2024-05-11.csv", rows)
        counts = {}
        for _ in range(2):
            result = execute(instance, resources, ask(instance, resources))
            assert result.success
            for one in result.all_events:
                if one.is_step_materialization:
                    told = one.step_materialization_data.materialization
                    counts[told.asset_key.to_user_string()] = {k: v.value for k, v in told.metadata.items()}
    assert (counts["raw_events"]["n_files_read"], counts["raw_events"]["n_rows_read"]) == (1, 2)
    assert "items" not in counts
    assert counts["cleaned_interactions"]["n_days"] == 2
    per_day = "select count(*) as n from cleaned_interactions where day in ('2024-05-02', '2024-05-11')"
    assert counts["cleaned_interactions"]["kept"] == resources["warehouse"].read(per_day).n[0]


@pytest.mark.parametrize("now", [None, "1989-12-31", "1990-01-01", "2024-02-29", "2024-03-01"])
def test_days_have_the_names_that_dagster_gives_them(now):
    theirs = dg.DailyPartitionsDefinition(start_date="1990-01-01", end_offset=1)
    moment = now and datetime.fromisoformat(now).replace(tzinfo=UTC)
    assert theirs == DAYS
    for _ in range(2):  # listed, and taken from what was listed
        assert DAYS.get_partition_keys(moment) == theirs.get_partition_keys(moment)


def test_every_relation_and_asset_has_a_blocking_gate():
    by_step = [{spec.asset_key.to_user_string() for spec in step.check_specs} for step in defs.asset_checks]
    assert {len(assets) for assets in by_step} == {1}  # all gates of an asset, and of no other, are one step
    checked = [asset for assets in by_step for asset in assets]
    assert len(checked) == len(set(checked))
    assert set(checked) == {
        "items",
        "judgments",
        *OFFERS,
        "exposures",
        "cleaned_interactions",
        "rejected_rows",
        "training_samples",
        "embeddings",
        "image_embeddings",
        "sample_attributes",
        "fold_predictions",
        "label_suspicions",
        "sample_values",
        "weighting_trials",
        "importance_weights",
        "evaluation",
        "importance_benchmark",
        "learning_periods",
        "interaction_trials",
        "interaction_weights",
        "item_index",
        "similar_items",
        "sample_choice",
        "next_visit_evaluation",
        "experiment_readout",
        "audiences",
        "audience_evaluation",
        "demand_forecast",
        "demand_evaluation",
        "recommendations",
        "drift",
        "costs",
        "published_model",
    }
    specs = [spec for check in defs.asset_checks for spec in check.check_specs]
    warning = {f"{family}_are_as_usual" for family in FAMILIES} | {"graphs_find_the_nearest_items"}
    assert {spec.name for spec in specs if not spec.blocking} == warning


def test_gpu_work_is_in_a_pool_of_its_own():
    pools = {asset.key.to_user_string(): asset.op.pool for asset in defs.assets if len(asset.keys) == 1}
    assert {name for name, pool in pools.items() if pool == "gpu"} == {
        "adapted_encoder",
        "embeddings",
        "image_embeddings",
        "fine_tuned_model",
    }
