"""What must be true of a relation beyond its columns: one law each, as a query for the rows that break it.

On the floor of `report`. The gates between the assets ask these.
"""

from dataclasses import dataclass

from ecom_pipeline.identity import group_id
from ecom_pipeline.samples import TAKEN
from ecom_pipeline.schema.inputs import OFFERS


@dataclass(frozen=True, slots=True)
class Law:
    """A statement about a relation, and the query that yields what breaks it."""

    relation: str
    name: str
    statement: str
    broken: str


def _empty_only_without_samples(relation: str) -> Law:
    return Law(
        relation,
        "empty_only_without_samples",
        "there are rows wherever there are samples",
        f"""select count(*) as n_samples from training_samples
           having n_samples > 0 and (select count(*) from {relation}) = 0""",
    )


def _rows_in_are_kept_or_rejected(table: str) -> Law:
    return Law(
        table,
        "rows_in_are_kept_or_rejected",
        f"every row of raw_{table} is in {table} or in rejected_rows, once",
        f"""select file, row_number from raw_{table} group by all
           having count(*) <> 1 or (select count(*) from raw_{table}) <> (select count(*) from {table})
               + (select count(*) from rejected_rows where source = '{table}')""",
    )


LAWS = (
    *(_rows_in_are_kept_or_rejected(table) for table in ("items", "judgments", *OFFERS, "exposures")),
    Law(
        "judgments",
        "a_query_has_one_split_and_one_grade_an_item",
        "in all its spellings and under all its ids, a query has one split, and one row an item",
        f"""select min(query) as query, null as item_id from judgments group by {group_id("query")}
           having count(distinct coalesce(split, 'none')) > 1
           union all
           select min(query), item_id from judgments group by {group_id("query")}, item_id having count(*) > 1""",
    ),
    Law(
        "judgments",
        "the_sources_grade_holds_where_no_rater_answered",
        "a grade is the source's, or raters gave it",
        """select query, item_id, relevance, source_relevance from judgments
           where n_raters = 0 and relevance is distinct from source_relevance""",
    ),
    Law(
        "cleaned_interactions",
        "rows_in_are_kept_or_rejected",
        "on every cleaned day, events that it was made of are events kept plus events rejected",
        """with kept as (select day, count(*) as n from cleaned_interactions group by day),
            gone as (select day, count(*) as n from rejected_rows where source = 'events' group by day)
        select day, ledger.n_rows as came_in, coalesce(kept.n, 0) as kept, coalesce(gone.n, 0) as rejected
        from ledger left join kept using (day) left join gone using (day)
        where asset = 'cleaned_interactions' and n_rows <> coalesce(kept.n, 0) + coalesce(gone.n, 0)""",
    ),
    Law(
        "training_samples",
        "no_group_is_in_two_splits",
        "all samples of a group are in one split and one fold",
        """select group_id from training_samples group by group_id
           having count(distinct split) > 1 or count(distinct fold) > 1""",
    ),
    Law(
        "sample_attributes",
        "one_row_per_sample",
        "every sample has one row, whatever is known of its item",
        """select sample_id from training_samples full join sample_attributes using (sample_id)
           where training_samples.item_id is null or sample_attributes.rowid is null""",
    ),
    Law(
        "training_samples",
        "the_last_period_is_test",
        "no training sample of a search is as late as a test sample, where days decide the split",
        """select sample_id, occurred_at from training_samples
           where split = 'train' and occurred_at::date > (
               select min(occurred_at)::date from training_samples where split = 'test')
           and (select count(distinct occurred_at::date) from training_samples) >= 3""",
    ),
    Law(
        "embeddings",
        "every_text_is_embedded_at_unit_length",
        "each text of a sample has an embedding of length 1",
        """with texts as (
            select context_text as text from training_samples union select item_text from training_samples)
        select text, list_sum([x * x for x in embedding]) as squared_length
        from texts left join embeddings on text_hash = md5(text)
        where embedding is null or abs(squared_length - 1) > 1e-3""",
    ),
    Law(
        "fold_predictions",
        "every_training_sample_has_one_score_a_repeat",
        "training samples and scores of each repeat are the same set",
        """select sample_id, repeat, n from (
            select s.sample_id, r.repeat, count(p.sample_id) as n
            from training_samples as s cross join (select distinct repeat from fold_predictions) as r
                left join fold_predictions as p on p.sample_id = s.sample_id and p.repeat = r.repeat
            where split = 'train' group by all)
        where n <> 1
        union all
        select sample_id, repeat, 0 from fold_predictions
        where sample_id not in (select sample_id from training_samples where split = 'train')""",
    ),
    Law(
        "fold_predictions",
        "no_group_is_scored_by_a_model_that_saw_it",
        "all samples of a group are in one fold of each repeat",
        """select group_id, repeat from fold_predictions join training_samples using (sample_id)
           group by all having count(distinct fold_predictions.fold) > 1""",
    ),
    Law(
        "sample_values",
        "every_training_sample_is_valued",
        "each estimator values exactly the training samples",
        """select estimator, count(*) as n from sample_values semi join (
               select sample_id from training_samples where split = 'train') using (sample_id)
           group by estimator having n <> (select count(*) from training_samples where split = 'train')
               or n <> (select count(*) from sample_values as all_ where all_.estimator = sample_values.estimator)""",
    ),
    Law(
        "label_suspicions",
        "every_training_sample_is_judged",
        "label_suspicions has exactly the training samples",
        """select sample_id from (select sample_id from training_samples where split = 'train') as s
           full join label_suspicions using (sample_id)
           where s.sample_id is null or wrong_probability is null""",
    ),
    Law(
        "weighting_trials",
        "one_weighting_is_chosen",
        "where weightings were tried, one is chosen, and the first is none",
        """select count(*) filter (where chosen) as n_chosen from weighting_trials
           having count(*) > 0
               and (n_chosen <> 1 or count(*) filter (where trial = 0 and estimator = 'none') <> 1)""",
    ),
    Law(
        "importance_weights",
        "weights_have_mean_one",
        "the weights of each estimator are >= 0 and have mean 1 over the training split",
        """select estimator, avg(sample_weight) as mean_weight, count(*) as n from importance_weights group by estimator
           having abs(mean_weight - 1) > 1e-6 or min(sample_weight) < 0
               or n <> (select count(*) from training_samples where split = 'train')""",
    ),
    Law(
        "evaluation",
        "both_twins_are_judged_on_the_same_groups",
        "a weighted and an unweighted figure of one slice are over equally many groups",
        """select split, slice, metric from evaluation where model in ('weighted', 'unweighted')
           group by all having count(*) <> 2 or count(distinct n_groups) > 1""",
    ),
    Law(
        "evaluation",
        "intervals_are_ordered",
        "the lower end of an interval is not above the upper",
        "select model, slice, metric, ci_low, ci_high from evaluation where ci_low > ci_high",
    ),
    *(
        _empty_only_without_samples(relation)
        for relation in ("fold_predictions", "sample_values", "weighting_trials", "importance_weights", "evaluation")
    ),
    Law(
        "learning_periods",
        "nothing_is_learnt_from_later_days",
        "of each origin, days to learn from come before those to choose on, and these before those to test on",
        """select origin from learning_periods group by origin
           having max(last_day) filter (where role = 'train') >= min(first_day) filter (where role = 'validation')
               or max(last_day) filter (where role = 'validation') >= min(first_day) filter (where role = 'test')""",
    ),
    Law(
        "interaction_trials",
        "one_weighting_of_acts_is_chosen",
        "one trial is chosen, and the first is none",
        """select count(*) filter (where chosen) as n_chosen from interaction_trials
           having n_chosen <> 1 or count(*) filter (
               where trial = 0 and age_form = 'none' and evidence = 'none' and quantity = 0) <> 1""",
    ),
    Law(
        "interaction_weights",
        "every_act_is_weighed",
        "every kept act by which an item was taken has one weight, and their mean is 1",
        f"""select event_id from (select event_id from cleaned_interactions where {TAKEN}) as e
           full join interaction_weights as w using (event_id) where e.event_id is null or w.event_id is null
           union all select 'mean ' || avg(interaction_weight) from interaction_weights
           having abs(avg(interaction_weight) - 1) > 1e-6""",
    ),
    Law(
        "sample_choice",
        "what_is_learnt_from_lies_in_its_periods",
        "every row that the ranker in use learnt from is of a day that it may learn from",
        """select day, count(*) as n from sample_choice where not exists (
               select 1 from learning_periods where role = 'train' and day between first_day and last_day
                   and origin = (select max(origin) from learning_periods)) group by day""",
    ),
    Law(
        "next_visit_evaluation",
        "all_systems_answer_the_same_visits",
        "a figure of a slice is over equally many users, whichever list of all periods it is of",
        """select slice, metric from next_visit_evaluation where model not like '% rows' and model not like 'retrieved: %'
               and metric <> 'coverage_at_10' group by all having count(distinct n_users) > 1""",
    ),
    Law(
        "recommendations",
        "nobody_is_shown_an_item_twice_or_one_that_cannot_be_had",
        "a list has each item once, its ranks have no gap, and no item of it is withdrawn",
        """select user_id, item_id, 'twice' as why from recommendations group by all having count(*) > 1
           union all select user_id, null, 'gap' from recommendations group by user_id having max(rank) <> count(*)
           union all select user_id, item_id, 'withdrawn' from recommendations
               semi join (from item_index where withdrawn) using (item_id)""",
    ),
)
