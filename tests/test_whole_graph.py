import json
import shutil

import duckdb
import numpy as np
import pytest
from shop import ecom, make_purchases
from sklearn.metrics import roc_auc_score

from assets.refresh import FLOW
from assets.watch import costs
from ecom_pipeline import schema
from ecom_pipeline.schema.inputs import COLUMNS
from resources.home import Home


@pytest.fixture
def db(finished):
    with duckdb.connect(str(finished.home / "warehouse.duckdb")) as connection:
        yield connection


def test_every_planted_bad_row_is_rejected_under_its_rule_and_no_other_row_is(db, shop):
    found = {(s, n): r for s, n, r in db.execute("select source, row_number, rule from rejected_rows").fetchall()}
    assert found == shop.bad


def test_rows_in_are_rows_kept_plus_rows_rejected(db):
    for table in COLUMNS:
        kept = "cleaned_interactions" if table == "events" else table
        came, stayed, gone = db.execute(
            f"select (select count(*) from raw_{table}), (select count(*) from {kept}), "
            f"(select count(*) from rejected_rows where source = '{table}')"
        ).fetchone()
        assert came == stayed + gone > 0


def test_planted_wrong_labels_come_out_low(db, shop):
    rows = db.execute(
        """select context_text, item_id, sample_value from sample_values join training_samples using (sample_id)
        where estimator = 'oof_confidence' and origin = 'judgment'"""
    ).fetchall()
    wrong = np.array([(query, item) in shop.flipped for query, item, _ in rows])
    assert wrong.sum() > 20
    assert roc_auc_score(wrong, [-value for *_, value in rows]) > 0.9  # 0.98 was measured


def test_people_are_in_the_warehouse_only_as_hashes(db):
    for table in ("raw_events", "cleaned_interactions", "raw_exposures"):
        (n,) = db.execute(
            f"select count(*) from {table} where user_id like 'person%' or session_id like 's%-%'"
        ).fetchone()
        assert n == 0
    for table, column in (("raw_campaign_users", "user_id"), ("campaign_users", "user_id"), ("exposures", "unit_id")):
        assert db.execute(f"select count(*) from {table} where {column} like '%person%'").fetchone() == (0,)
    (n,) = db.execute("select count(*) from rejected_rows where raw like '%person-%' or raw like '%robot%'").fetchone()
    assert n == 0


def test_the_key_that_hashes_people_is_made_once_and_readable_by_its_owner_alone(tmp_path, monkeypatch):
    monkeypatch.delenv("ECOM_HASH_KEY")
    home = Home(path=str(tmp_path / "home"))
    assert home.hash_key() == home.hash_key() != Home(path=str(tmp_path / "other")).hash_key()
    assert (home.folder / "hash.key").stat().st_mode & 0o777 == 0o600


def test_a_return_of_a_later_day_names_its_purchase(db):
    rows = db.execute("select event_id, return_of from cleaned_interactions where action = 'return'").fetchall()
    assert rows == [("back", "bought")]


MADE_BY_A_RUN = [relation for relation in schema.RELATIONS.values() if relation.name != "importance_benchmark"]


@pytest.mark.parametrize("relation", MADE_BY_A_RUN, ids=lambda relation: relation.name)
def test_every_relation_keeps_its_schema(db, relation):
    assert db.sql(f"from {relation.name}").columns == relation.column_names
    assert [str(v) for v in schema.violations(db, relation) if v.n_rows] == []


def test_the_literal_formula_keeps_its_negatives_in_the_values_and_loses_them_in_the_weights(db):
    values, weights = (
        np.array(db.execute(f"select {column} from {table} where estimator = 'literal_prediction_gap'").fetchall())
        for column, table in (("sample_value", "sample_values"), ("sample_weight", "importance_weights"))
    )
    assert (values < 0).mean() > 0.3
    assert weights.min() == 0
    assert weights.mean() == pytest.approx(1)


def test_both_twins_had_the_same_seeds_data_and_number_of_trials(finished):
    (manifest,) = (finished.home / "models").glob("*/manifest.json")
    twins = json.loads(manifest.read_text())["twins"]
    weighted, unweighted = twins["weighted"], twins["unweighted"]
    assert [s["seed"] for s in weighted["seeds"]] == [s["seed"] for s in unweighted["seeds"]] == [0, 1]
    assert len(weighted["trials"]) == len(unweighted["trials"])


def test_rankers_learn_what_popularity_cannot_know(db):
    ndcg = dict(
        db.execute("select model, value from evaluation where metric = 'ndcg_at_10' and slice = 'all'").fetchall()
    )
    assert ndcg["weighted"] > ndcg["popularity"] + 0.1
    assert ndcg["unweighted"] > ndcg["popularity"] + 0.1


def test_the_models_folder_holds_no_pickle(finished):
    endings = {path.suffix for path in (finished.home / "models").rglob("*") if path.is_file()}
    assert endings == {".safetensors", ".json"}


def test_what_each_asset_took_is_noted(db):
    noted = {
        asset: rest for asset, *rest in db.execute("select asset, seconds, n_rows, gpu_seconds from costs").fetchall()
    }
    before = FLOW[: FLOW.index(costs)]
    assert noted.keys() >= {key.to_user_string() for asset in before for key in asset.keys}
    assert all(seconds > 0 for seconds, *_ in noted.values())
    for asset in ("cleaned_interactions", "recommendations"):  # the first has days, whose rows are summed
        assert noted[asset][1:] == [*db.execute(f"select count(*) from {asset}").fetchone(), 0]


def test_a_second_run_makes_nothing(finished, config):
    result = ecom("run", "--config", config, home=finished.home, check=True)
    assert "nothing is new" in result.stderr
    assert result.stdout == finished.output


def test_a_new_day_is_cleaned_alone_and_lists_are_made_for_the_next_with_nothing_learnt_anew(
    finished, shop, config, tmp_path
):
    home, folder = tmp_path / "home", tmp_path / "shop"
    shutil.copytree(finished.home, home)
    shutil.copytree(shop.folder, folder)
    with (folder / "events.csv").open("a") as file:
        file.write("new,2024-05-11T10:00:00Z,person-1,z,click,i0-0-0,,,,,\n")
    result = ecom("run", "--source", folder, "--config", config, home=home, check=True)
    assert "1 days of 2024-05-11 to 2024-05-11 are stale" in result.stderr
    assert "users, of 120 items, for 2024-05-11" in finished.output
    assert "users, of 120 items, for 2024-05-12" in result.stdout
    for step in (
        "ranker",
        "interaction_trials",
        "fold_predictions",
        "weighting_trials",
        "fine_tuned_model",
        "evaluation",
    ):
        assert f" {step}: " not in result.stderr
    assert (
        result.stdout.split("search, test split")[1].split("report: ")[0]
        == (finished.output.split("search, test split")[1].split("report: ")[0])
    )


def test_what_people_did_is_not_called_a_wrong_label(db):
    """It happened; only what raters judged is flagged."""
    rows = db.execute(
        """select origin = 'judgment', sum(flagged::int), count(*) from label_suspicions
        join training_samples using (sample_id) group by 1 order by 1"""
    ).fetchall()
    (_, flagged_behaviour, n_behaviour), (_, flagged_judgments, _) = rows
    assert n_behaviour > 100
    assert flagged_behaviour == 0 < flagged_judgments


def test_a_shop_with_purchases_alone_gets_lists_and_an_empty_half_of_search(shop, quick, tmp_path):
    folder, home = tmp_path / "shop", tmp_path / "home"
    folder.mkdir()
    make_purchases(shop, folder)
    result = ecom("run", "--source", folder, "--config", quick, home=home, check=True)
    assert "weighted and chosen - unweighted twin" in result.stdout
    assert "nothing to learn search from" in result.stdout
    assert not list((home / "models").glob("*"))
    with duckdb.connect(str(home / "warehouse.duckdb")) as db:
        (n_users,) = db.execute("select count(distinct user_id) from recommendations").fetchone()
        assert n_users > 20
        for relation in MADE_BY_A_RUN:
            assert db.sql(f"from {relation.name}").columns == relation.column_names
            assert [str(v) for v in schema.violations(db, relation) if v.n_rows] == []
            (n_rows,) = db.execute(f"select count(*) from {relation.name}").fetchone()
            assert n_rows > 0 or relation.may_be_empty
    exported = tmp_path / "weights.parquet"
    told = ecom("weights", "--export", exported, home=home, check=True).stdout
    assert told.endswith(f"weights of past acts: {tmp_path / 'weights-interactions.parquet'}\n")
    assert not exported.exists()
    for command in (
        ("suspects",),
        ("suspects", "--ask"),
        ("weights", "--export", exported, "--estimator", "automatic"),
    ):
        refused = ecom(*command, home=home)
        assert refused.returncode == 2
        assert "0 judged or searched pairs are there" in refused.stderr
    again = ecom("run", "--config", quick, home=home, check=True)
    assert "nothing is new" in again.stderr
