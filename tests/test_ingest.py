from assets.ingest import PUBLIC_KEY, outside
from resources.home import Home


def test_packaged_data_are_hashed_alike_everywhere_unless_a_key_is_asked_for(tmp_path):
    here, there, secret = (
        outside(Home(path=str(tmp_path / name), asked_key=key))["key"]
        for name, key in (("here", ""), ("there", ""), ("secret", "mine"))
    )
    assert here == there != secret
    assert not (tmp_path / "here" / "hash.key").exists()


def test_a_shops_own_folder_has_a_secret_of_its_home(tmp_path, shop):
    keys = {
        outside(Home(path=str(tmp_path / name), asked_source=f"canonical:{shop.folder}"))["key"] for name in ("a", "b")
    }
    assert len(keys) == 2
    assert (tmp_path / "a" / "hash.key").read_text() != PUBLIC_KEY.hex()
