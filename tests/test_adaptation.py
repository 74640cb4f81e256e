"""Adaptation: what is learnt from, what a step teaches, how it survives a kill, and when it is done anew."""

import shutil
from dataclasses import replace

import dagster as dg
import duckdb
import numpy as np
import pandas as pd
import pytest
import torch
from models import write_model

from assets.language import adapted_encoder, encoder_folder
from ecom_pipeline.curves import untracked
from ecom_pipeline.errors import ModelError
from ecom_pipeline.language.adaptation import loop
from ecom_pipeline.language.adaptation.choice import Rules, choose
from ecom_pipeline.language.adaptation.corpus import gather
from ecom_pipeline.language.adaptation.negatives import Negatives
from ecom_pipeline.language.adaptation.objectives import IGNORED, contrast, hide
from ecom_pipeline.language.adaptation.retrieval import Retrieval, difference, read_retrieval, recall_at_k
from ecom_pipeline.language.adaptation.settings import Adaptation
from ecom_pipeline.language.adapted import Named, as_named, encoder_id, is_readable, open_encoder
from ecom_pipeline.language.encoder import PACKAGED, encode, load_encoder
from resources.compute import Compute
from resources.home import Home
from resources.tracking import Tracking
from resources.warehouse import Warehouse

SETTINGS = Adaptation(
    **{"n_steps": 8, "language": 0, "query": 1, "history": 0, "attribute": 0, "from_samples": True, "history_items": 3},
    **{"n_top": 2, "learning_rate": 1e-3, "batch_pairs": 6, "batch_texts": 6, "mask_share": 0.15, "temperature": 0.05},
    **{"correct_popularity": True},
    **{"hard_negatives": 0, "pool_items": 50, "skipped": 1, "warmup_share": 0.1, "seed": 3},
)
ANY = Rules(min_new_share=0.2, only_if_better=False)
WORDS = ("mug", "lamp", "shoe", "oil", "mat", "hose", "coat", "case", "game", "food", "desk", "cup")


def frame(pairs, refused=()):
    rows = [(*pair, False) for pair in pairs] + [(*pair, True) for pair in refused]
    return pd.DataFrame(rows, columns=["first", "second", "refused"])


def corpus_of(words=WORDS, refused=()):
    pairs = frame([(f"I want {word}", f"{word} number {n}") for word in words for n in (1, 2)], refused)
    told = {"query": pairs, "history": pairs, "attribute": frame([])}
    return gather([f"a {word} for you" for word in words], told, list(pairs.second))


def tiny(folder, family="bert"):
    return Named(write_model(family, folder), 24)


def masked(encoder):
    """The small models know no mask; any sign that is used for nothing else will do."""
    if not encoder.causal:
        encoder.tokenizer.mask_token = "[UNK]"
    return encoder


ASKED = Retrieval(("I want mug", "I want oil"), ("mug number 1", "oil number 1"), np.array([0, 1]), np.array([0, 1]))


class Killed(BaseException):
    """Stands for a kill."""


def weights(encoder):
    return {name: value.clone() for name, value in encoder.model.state_dict().items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


# what is learnt from


@pytest.fixture(scope="module")
def db(finished):
    with duckdb.connect(str(finished.home / "warehouse.duckdb")) as connection:
        yield connection


def test_the_same_data_has_the_same_digest_and_new_data_is_counted():
    old, new = corpus_of(WORDS[:9]), corpus_of(WORDS)
    assert corpus_of(WORDS[:9]).digest == old.digest != new.digest
    assert new.new_share(old.keys) == pytest.approx(3 / 12)
    assert old.new_share(new.keys) == 0


# what a step teaches


def test_a_text_that_belongs_to_the_left_is_no_negative_of_it():
    corpus = corpus_of(("mug", "lamp"))
    pairs = corpus.pairs["query"]
    mask = Negatives.of(pairs, len(corpus.texts)).mask(pairs.left, pairs.right)
    about = [corpus.texts[row].split()[-1] for row in pairs.left]
    items = [corpus.texts[row].split()[0] for row in pairs.right]
    assert mask.tolist() == [[query != item for item in items] for query in about]


def test_contrast_is_the_cross_entropy_over_what_is_no_false_negative():
    left, right = torch.eye(3), torch.eye(3)[[0, 1, 2, 1]]
    negative = np.array([[0, 1, 0, 1], [1, 0, 1, 0], [1, 1, 0, 1]], bool)
    one_way = contrast(left, right, negative, 0.5, both_ways=False).item()
    by_hand = np.mean([np.log(1 + n * np.exp(-2)) for n in (2, 2, 3)])
    assert one_way == pytest.approx(by_hand, abs=1e-6)


def test_what_is_often_in_the_pairs_is_pushed_away_less():
    pairs = frame([("a", "loved"), ("b", "loved"), ("c", "loved"), ("d", "lonely")])
    corpus = gather([], {"query": pairs, "history": frame([]), "attribute": frame([])}, [])
    loved, lonely = (corpus.texts.index(text) for text in ("loved", "lonely"))
    known = Negatives.of(corpus.pairs["query"], len(corpus.texts))
    often = known.often(np.array([loved, lonely, lonely]), 2)
    assert often.tolist() == pytest.approx([np.log(3) / 2, -np.log(3) / 2, 0])
    vectors = torch.eye(2)
    loss = contrast(vectors, vectors, ~np.eye(2, dtype=bool), 1.0, often[:2], both_ways=False).item()
    assert loss == pytest.approx(np.mean([np.log(1 + np.exp(-1) * 3), np.log(1 + np.exp(-1) / 3)]), abs=1e-6)


def test_hard_negatives_are_near_or_refused_and_never_positive():
    corpus = corpus_of(refused=[("I want mug", "lamp number 1")])
    encoder = load_encoder(PACKAGED, 24, "cpu")
    run = loop._Run(encoder, corpus, replace(SETTINGS, hard_negatives=2, skipped=0), None)
    run._mine(corpus.pairs["query"], run.negatives["query"])
    mug = corpus.texts.index("I want mug")
    drawn = {
        corpus.texts[row]
        for _ in range(40)
        for row in run.negatives["query"].draw(np.array([mug]), 2, np.random.default_rng(_))
    }
    assert "lamp number 1" in drawn
    assert "cup number 1" in drawn
    assert not {text for text in drawn if text.startswith("mug")}


def test_of_ten_hidden_tokens_eight_are_masks_and_special_ones_stay():
    encoder = load_encoder(PACKAGED, 96, "cpu")
    text = [101, *range(5000, 6000), 102]
    (hidden,), (label,) = hide([text], encoder.tokenizer, 0.4, np.random.default_rng(0))
    asked = np.array(label) != IGNORED
    assert asked.sum() == 400
    assert not asked[[0, -1]].any()
    assert (np.array(hidden)[asked] == encoder.tokenizer.mask_token_id).mean() == pytest.approx(0.8, abs=0.06)
    assert np.array(text)[asked].tolist() == np.array(label)[asked].tolist()


@pytest.mark.parametrize("family", ["bert", "gpt2", "qwen3"])
def test_words_are_guessed_better_after_learning(family, tmp_path):
    encoder = masked(tiny(tmp_path, family).load("cpu"))
    encoder.model.config.tie_word_embeddings = True  # as the published ones of Qwen have it
    settings = replace(SETTINGS, query=0, language=1, n_steps=60, n_top=3, learning_rate=3e-3)
    told = loop.adapt(encoder, corpus_of(), settings, tmp_path / "c.safetensors", lambda step, figures: None)
    assert np.mean(told.losses[-5:]) < np.mean(told.losses[:5]) - 0.3


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_a_step_of_words_is_the_same_whatever_its_texts_are_padded_with(family, tmp_path, monkeypatch):
    words = ("mug", "a much longer lamp", "oil")

    def loss():
        encoder = masked(tiny(tmp_path, family).load("cpu"))
        run = loop._Run(encoder, corpus_of(words), replace(SETTINGS, query=0, language=1), tmp_path / "c.safetensors")
        return run.take()[0]

    together = loss()
    monkeypatch.setattr(loop, "_PART_TOKENS", 1)  # each text alone
    assert loss() == pytest.approx(together, abs=1e-4)


def test_a_model_without_a_mask_cannot_be_taught_masked_words(tmp_path):
    encoder = tiny(tmp_path).load("cpu")
    with pytest.raises(ModelError, match=r"1 tokenizer has no mask.*`language` to 0"):
        loop._Run(encoder, corpus_of(), replace(SETTINGS, language=1), tmp_path / "c.safetensors")


def test_a_decoder_with_output_words_of_its_own_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"output embeddings of its own.*`language` to 0"):
        loop._Run(tiny(tmp_path, "qwen3").load("cpu"), corpus_of(), replace(SETTINGS, language=1), tmp_path / "c")


def test_the_packaged_model_learns_which_texts_belong_together(tmp_path):
    made_up = [("zorp", "blue iron"), ("quil", "green glass"), ("vamt", "soft wool"), ("hurb", "old paper")]
    told = {"query": frame(made_up), "history": frame([]), "attribute": frame([])}
    corpus = gather([], told, [item for _, item in made_up])
    encoder = load_encoder(PACKAGED, 16, "cpu")
    settings = replace(SETTINGS, n_steps=25, learning_rate=2e-4, n_top=6)
    loop.adapt(encoder, corpus, settings, tmp_path / "c.safetensors", lambda step, figures: None)
    left, right = (encode(encoder, texts, 512).embedding for texts in zip(*made_up, strict=True))
    assert (left @ right.T).argmax(1).tolist() == [0, 1, 2, 3]


def test_layers_below_the_cut_stay_as_they_were(tmp_path):
    encoder = tiny(tmp_path).load("cpu")
    before = weights(encoder)
    loop.adapt(encoder, corpus_of(), SETTINGS, tmp_path / "c.safetensors", lambda step, figures: None)
    changed = {name.split(".")[2] for name, value in weights(encoder).items() if not torch.equal(value, before[name])}
    assert changed == {"1", "2"}


def test_parts_have_the_gradients_of_the_whole_batch(tmp_path):
    found = []
    for cached in (False, True):
        encoder = tiny(tmp_path).load("cpu")
        run = loop._Run(encoder, corpus_of(), SETTINGS, tmp_path / "c.safetensors")
        run.cached, run.halving.limit = cached, 5 if cached else np.inf
        run.take()
        found.append({name: value.grad.clone() for name, value in run.learning.items()})
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-6)


def test_a_batch_that_does_not_fit_into_memory_is_gone_on_with_in_parts(tmp_path, monkeypatch):
    run = loop._Run(tiny(tmp_path).load("cpu"), corpus_of(), SETTINGS, tmp_path / "c.safetensors")
    fits = loop._Run._vectors

    def small(self, rows):
        if torch.is_grad_enabled() and len(rows) > 4:
            raise MemoryError
        return fits(self, rows)

    monkeypatch.setattr(loop._Run, "_vectors", small)
    loss, _ = run.take()
    assert run.cached
    assert run.halving.limit <= 4
    assert np.isfinite(loss)


# a kill


def test_a_killed_adaptation_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_STEPS", 3)
    settings = replace(SETTINGS, language=1, history=1, hard_negatives=1, n_steps=11)
    corpus, named = corpus_of(), tiny(tmp_path / "model")

    def adapted(name, kill_at=None):
        encoder = masked(named.load("cpu"))

        def watch(step, figures):
            if step == kill_at:
                raise Killed

        loop.adapt(encoder, corpus, settings, tmp_path / name, watch)
        return weights(encoder)

    whole = adapted("whole.safetensors")
    with pytest.raises(Killed, match=r"^$"):
        adapted("killed.safetensors", kill_at=8)
    assert same(adapted("killed.safetensors"), whole)


# whether it helped, and when it is done anew


def test_recall_counts_what_is_among_the_nearest():
    encoder = load_encoder(PACKAGED, 24, "cpu")
    asked = Retrieval(
        ("coffee mug", "desk lamp"), ("red coffee mug", "green desk lamp", "olive oil"),
        np.array([0, 0, 1]), np.array([0, 2, 1]),
    )  # fmt: skip
    assert recall_at_k(encoder, asked, 1, 512).tolist() == [0.5, 1]


def test_the_same_figures_differ_by_nothing():
    value = np.array([0.2, 0.4, 0.9])
    found = difference(value, value, 0)
    assert found.gain == (0, 0, 0)
    assert found.before[1] < found.before[0] < found.before[2]


def test_validation_asks_for_what_was_taken_among_all_items(db):
    asked = read_retrieval(db, "validation", 0)
    (n_groups, n_pairs) = db.execute(
        """select count(distinct group_id), count(distinct (group_id, item_text)) from training_samples
        where split = 'validation' and label >= 0.5"""
    ).fetchone()
    assert (len(asked.contexts), len(asked.item), len(asked.items)) == (n_groups, n_pairs, 120)


def test_without_steps_the_named_model_is_used_as_it_is(tmp_path):
    named = tiny(tmp_path / "model")
    chosen = choose(named, replace(SETTINGS, n_steps=0), ANY, corpus_of(), ASKED, tmp_path, "cpu", untracked)
    assert chosen.outcome == "named"
    assert encoder_id(chosen.folder) == named.encoder_id == open_encoder(chosen.folder, "cpu").encoder_id


@pytest.fixture
def adapt(tmp_path):
    def run(corpus, settings=SETTINGS, rules=ANY):
        return choose(tiny(tmp_path / "model"), settings, rules, corpus, ASKED, tmp_path / "e", "cpu", untracked)

    return run


def test_an_adapted_encoder_is_opened_as_it_was_left(adapt, tmp_path):
    chosen = adapt(corpus_of())
    assert chosen.outcome == "adapted"
    opened = open_encoder(chosen.folder, "cpu")
    assert opened.encoder_id == encoder_id(chosen.folder) != tiny(tmp_path / "model").encoder_id
    assert {file.suffix for file in chosen.folder.rglob("*") if file.is_file()} == {".json", ".safetensors"}


def test_little_that_is_new_keeps_the_encoder_and_much_adapts_anew(adapt):
    first = adapt(corpus_of(WORDS[:10]))
    assert (adapt(corpus_of(WORDS[:11])).outcome, adapt(corpus_of(WORDS[:11])).folder) == ("kept", first.folder)
    again = adapt(corpus_of(WORDS[:5]), replace(SETTINGS, n_steps=9))
    assert again.outcome == "adapted"
    assert adapt(corpus_of(WORDS), replace(SETTINGS, n_steps=9)).outcome == "adapted"


def test_an_encoder_that_does_not_find_more_for_certain_is_refused(adapt, tmp_path):
    strict = Rules(min_new_share=0.2, only_if_better=True)
    chosen = adapt(corpus_of(), rules=strict)  # both contexts find their items before, as there are but two
    assert chosen.outcome == "refused"
    assert encoder_id(chosen.folder) == tiny(tmp_path / "model").encoder_id
    assert chosen.figures["validation_recall_at_100_gain"] == 0


def test_an_encoder_that_is_gone_says_what_to_do(tmp_path):
    folder = as_named(tiny(tmp_path / "model"), tmp_path / "e")
    (folder / "adaptation.json").write_text('{"named": ')
    assert not is_readable(folder)
    with pytest.raises(ModelError, match=r"1 file is damaged.*start `ecom run`"):
        open_encoder(folder, "cpu")
    (folder / "adaptation.json").unlink()
    with pytest.raises(ModelError, match=r"1 file is missing.*start `ecom run`"):
        open_encoder(folder, "cpu")


# the asset


def materialise(home, config):
    warehouse = Warehouse(path=str(home / "warehouse.duckdb"))
    resources = {
        "home": Home(path=str(home)),
        "warehouse": warehouse,
        "compute": Compute(device="cpu"),
        "tracking": Tracking(path=str(home / "curves"), backend="none"),
    }
    told = dg.materialize(
        [adapted_encoder], resources=resources, run_config={"ops": {"adapted_encoder": {"config": config}}}
    )
    (event,) = told.asset_materializations_for_node("adapted_encoder")
    with warehouse.connect() as db:
        return encoder_folder(db, resources["home"]), {key: one.value for key, one in event.metadata.items()}


def test_the_asset_publishes_what_was_learnt_and_learns_it_once(finished, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(finished.home / "warehouse.duckdb", home)
    config = {
        **{"model": tiny(tmp_path / "model").model, "max_tokens": 24, "n_steps": 6, "n_top": 1, "batch_pairs": 8},
        **{"only_if_better": False, "from_samples": True},
    }
    folder, told = materialise(home, config)
    assert (told["outcome"], told["n_steps_query"], told["n_steps_history"]) == ("adapted", 3, 3)
    assert told["encoder_id"] == open_encoder(folder, "cpu").encoder_id
    assert {"validation_recall_at_100_gain_ci_low", "last_loss_query"} <= told.keys()
    again, told = materialise(home, config)
    assert (again, told["outcome"]) == (folder, "kept")
