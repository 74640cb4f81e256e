import hashlib
import os
import shutil
from pathlib import Path

import dagster as dg
import duckdb
import numpy as np
import pytest
from PIL import Image
from shop import KINDS

from assets.modes import image_embeddings, sample_attributes
from ecom_pipeline.errors import ModelError
from ecom_pipeline.language import vision
from ecom_pipeline.language.embeddings import sample_features
from ecom_pipeline.language.vision import embed_pictures, find_pictures, load_vision, look, vision_id
from ecom_pipeline.ranking.ablation import steps
from resources.compute import Compute
from resources.home import Home
from resources.warehouse import Warehouse


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small vision transformer of the usual make that nobody has trained."""
    import torch
    from transformers import ViTConfig, ViTModel
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("vision") / "small-vit"
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    ViTModel(ViTConfig(**shape, image_size=32, patch_size=8), add_pooling_layer=False).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def draw(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (40, 30)) -> Path:
    Image.new("RGB", size, colour).save(path)
    return path


def test_equal_pictures_have_equal_unit_vectors_and_different_ones_do_not(vit, tmp_path):
    encoder = load_vision(str(vit), "cpu")
    red, again, blue = (
        Image.open(draw(tmp_path / f"{n}.png", c))
        for n, c in (("a", (255, 0, 0)), ("b", (255, 0, 0)), ("c", (0, 0, 255)))
    )
    vectors = look(encoder, [red, again, blue])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1, 1], abs=1e-5)
    assert vectors[0] == pytest.approx(vectors[1], abs=1e-5)
    assert vectors[0] @ vectors[2] < 0.999
    assert vectors == pytest.approx(np.vstack([look(encoder, [one]) for one in (red, again, blue)]), abs=1e-5)


@pytest.mark.parametrize("kind", ["ConvNextModel", "CLIPModel", "Dinov2Model"])
def test_other_makes_of_vision_model_give_one_vector_a_picture(kind, tmp_path):
    import transformers
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    seeing = small | {"image_size": 32, "patch_size": 16}
    config = {
        "ConvNextModel": lambda: transformers.ConvNextConfig(hidden_sizes=[8, 16, 16, 16], depths=[1, 1, 1, 1]),
        "CLIPModel": lambda: transformers.CLIPConfig(text_config=small, vision_config=seeing),
        "Dinov2Model": lambda: transformers.Dinov2Config(**seeing),
    }[kind]()
    getattr(transformers, kind)(config).save_pretrained(tmp_path)
    square = {"height": 32, "width": 32}
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=square).save_pretrained(tmp_path)
    vectors = look(
        load_vision(str(tmp_path), "cpu"), [Image.new("RGB", (50, 40)), Image.new("RGB", (9, 9), (9, 99, 200))]
    )
    assert vectors.shape == (2, 16)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1], abs=1e-5)


def test_pictures_lie_in_the_sources_folder_or_at_a_file_address_and_nowhere_else(tmp_path):
    file = draw(tmp_path / "a b.png", (1, 2, 3))
    wanted = {"1": "a b.png", "2": file.as_uri(), "3": str(file), "4": "https://example.com/a.png", "5": "gone.png"}
    found = {one.item_id: one for one in find_pictures(wanted, tmp_path)}
    assert {found[item].digest for item in "123"} == {hashlib.md5(file.read_bytes()).hexdigest()}
    assert "https:// is not fetched" in found["4"].reason
    assert "No such file" in found["5"].reason


def test_only_regular_files_below_the_sources_folder_are_opened(tmp_path):
    folder, outside = tmp_path / "shop", tmp_path / "secret.png"
    (folder / "below").mkdir(parents=True)
    inside = draw(folder / "below" / "red.png", (255, 0, 0))
    draw(outside, (1, 2, 3))
    (folder / "link.png").symlink_to(outside)
    (folder / "round.png").symlink_to("round.png")
    (folder / "away").symlink_to(tmp_path)
    (folder / "fine.png").symlink_to(inside)
    os.mkfifo(folder / "pipe.png")
    refused = [
        *("../secret.png", str(outside), outside.as_uri(), "link.png", "away/secret.png", "below/../../secret.png"),
        *("pipe.png", "below", "/dev/zero", "file:///dev/zero", "file:///%2e%2e/secret.png", "round.png", "a\0b.png"),
        *("x" * 5000, "http://[x", "~/secret.png", f"{folder}/../secret.png"),
    ]
    accepted = ["below/red.png", "fine.png", "below/../below/red.png", str(inside), inside.as_uri()]
    wanted = {str(nth): uri for nth, uri in enumerate(refused + accepted)}
    found = list(find_pictures(wanted, folder))
    assert [one.uri for one in found if one.reason is None] == accepted
    assert all(one.digest is None and one.file is None for one in found if one.reason)
    assert {one.digest for one in found if not one.reason} == {hashlib.md5(inside.read_bytes()).hexdigest()}


def test_a_picture_that_becomes_a_pipe_after_it_was_found_is_not_waited_for(vit, tmp_path, monkeypatch):
    draw(tmp_path / "one.png", (1, 2, 3))
    load = vision.load_vision

    def swap(*args):
        (tmp_path / "one.png").unlink()
        os.mkfifo(tmp_path / "one.png")
        return load(*args)

    monkeypatch.setattr(vision, "load_vision", swap)
    rows = embed_pictures({"a": "one.png"}, tmp_path, {}, str(vit), "cpu")
    assert (
        rows.reason[0]
        == "the file is no picture that can be read: a picture must be a regular file: this is a folder, a pipe or a device"
    )


def test_a_file_that_is_no_picture_is_named_and_the_others_are_seen(vit, tmp_path):
    draw(tmp_path / "good.png", (1, 2, 3))
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:60])
    rows = embed_pictures({"a": "good.png", "b": "bad.png", "c": "cut.png"}, tmp_path, {}, str(vit), "cpu")
    assert rows.embedding.notna().tolist() == [True, False, False]
    assert rows.reason[1].startswith("the file is no picture that can be read")
    assert rows.reason[2].startswith("the file is no picture that can be read")


def test_a_picture_that_is_known_is_not_looked_at_again(vit, tmp_path, monkeypatch):
    draw(tmp_path / "one.png", (1, 2, 3))
    rows = embed_pictures({"a": "one.png"}, tmp_path, {}, str(vit), "cpu")
    known = dict(zip(rows.image_hash, rows.embedding, strict=True))
    monkeypatch.setattr(vision, "load_vision", None)
    again = embed_pictures({"a": "one.png", "b": "one.png"}, tmp_path, known, str(vit), "cpu")
    assert again.encoder_id.unique().tolist() == [vision_id(str(vit))]
    assert again.embedding[1] == pytest.approx(rows.embedding[0])


def test_a_vision_model_must_have_safetensors(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="Weights are read from safetensors alone"):
        vision_id(str(tmp_path))


@pytest.fixture(scope="module")
def pictured(finished, vit, tmp_path_factory):
    """The small shop once more, its items of a kind in like colours; one picture is broken and many items have none."""
    home = tmp_path_factory.mktemp("pictured")
    shutil.copy(finished.home / "warehouse.duckdb", home)
    warehouse, folder = Warehouse(path=str(home / "warehouse.duckdb")), home / "shop"
    folder.mkdir()
    (folder / "items.csv").write_text("item_id,title\n")
    (folder / "judgments.csv").write_text("query,item_id,relevance\n")
    generator = np.random.default_rng(0)
    with warehouse.connect() as db:
        for place in range(len(KINDS)):
            colour = generator.integers(30, 225, 3)
            for nth in range(6):  # of 12 items of the kind
                draw(folder / f"{place}-{nth}.png", tuple(int(c) for c in colour + generator.integers(-20, 20, 3)))
            db.execute(
                f"""update items set image_uri = '{place}-' || n || '.png' from (
                    select item_id as id, row_number() over (order by item_id) - 1 as n from items
                    where item_id like 'i{place}-%') where id = item_id and n < 6"""
            )
    (folder / "0-0.png").write_bytes(b"broken")
    resources = {
        "warehouse": warehouse,
        "home": Home(path=str(home), asked_source=str(folder)),
        "compute": Compute(device="cpu"),
    }
    config = dg.RunConfig(ops={"image_embeddings": {"config": {"model": str(vit)}}})
    result = dg.materialize([image_embeddings, sample_attributes], resources=resources, run_config=config)
    return warehouse, result


def test_an_unreadable_picture_is_counted_and_named(pictured):
    _, result = pictured
    told = result.asset_materializations_for_node("image_embeddings")[0].metadata
    assert told["n_images"].value == 60
    assert told["n_unreadable_images"].value == 1
    assert told["first_unreadable_image"].value.startswith("i0-0-0: 0-0.png: the file is no picture")


def test_pictures_are_like_those_of_what_a_user_took_before_where_the_item_is(pictured):
    warehouse, _ = pictured
    rows = warehouse.read(
        "select label, image_similarity from training_samples join sample_attributes using (sample_id) "
        "where origin = 'search' and image_similarity is not null"
    )
    assert len(rows) > 100
    assert rows[rows.label == 1].image_similarity.mean() > rows[rows.label == 0].image_similarity.mean()


def test_an_item_without_a_picture_has_the_same_features_but_for_zeros_and_a_neutral_likeness(pictured):
    warehouse, _ = pictured
    with warehouse.connect() as db:
        samples = db.sql("from training_samples order by sample_id").df()
        pairs = sample_features(db, samples)
        seen = {
            item for (item,) in db.sql("select item_id from image_embeddings where embedding is not null").fetchall()
        }
    known = pairs.match[:, pairs.names.index("image_known")] == 1
    of_picture = [name.startswith("image_") and name != "image_similarity" for name in pairs.names]
    likeness = pairs.match[:, pairs.names.index("image_similarity")]
    assert len(set(likeness[~known])) == 1  # neutral: what those that are known have on average
    assert likeness[known].min() < likeness[~known][0] < likeness[known].max()
    assert known.tolist() == samples.item_id.isin(seen).tolist()
    assert (pairs.match[~known][:, of_picture] == 0).all()
    assert np.isfinite(pairs.match).all()
    assert list(steps(pairs.names))[-1] == "linear: + image"


def test_without_a_vision_model_nothing_is_looked_at_and_the_run_says_so(finished):
    with duckdb.connect(str(finished.home / "warehouse.duckdb")) as db:
        assert db.sql("select count(*) from image_embeddings").fetchone() == (0,)
        assert db.sql("select count(image), count(popularity) > 0 from sample_attributes").fetchone() == (0, True)
