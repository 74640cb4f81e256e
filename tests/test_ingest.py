import pytest

from assets.ingest import PUBLIC_KEY, outside
from ecom_pipeline.errors import InputError
from resources.home import Home


def test_packaged_data_are_hashed_alike_everywhere_unless_a_key_is_asked_for(tmp_path, monkeypatch):
    def key_of(name: str, asked: str) -> str:
        monkeypatch.setenv("ECOM_HASH_KEY", asked)
        return outside(Home(path=str(tmp_path / name)), "raw_items")["key"]

    here, there, secret = key_of("here", ""), key_of("there", ""), key_of("secret", "mine")
    assert here == there != secret
    assert not (tmp_path / "here" / "hash.key").exists()


def test_a_shops_own_folder_has_a_secret_of_its_home(tmp_path, shop, monkeypatch):
    monkeypatch.delenv("ECOM_HASH_KEY")
    keys = {
        outside(Home(path=str(tmp_path / name), asked_source=f"canonical:{shop.folder}"), "raw_items")["key"]
        for name in ("a", "b")
    }
    assert len(keys) == 2
    assert (tmp_path / "a" / "hash.key").read_text() != PUBLIC_KEY.hex()


@pytest.mark.parametrize("blank", [" ", "\t\n "])
def test_a_blank_key_is_no_secret_and_is_refused(tmp_path, shop, monkeypatch, blank):
    monkeypatch.setenv("ECOM_HASH_KEY", blank)
    with pytest.raises(InputError, match=rf"ECOM_HASH_KEY: 1 key is blank: {len(blank)} characters"):
        Home(path=str(tmp_path), asked_source=f"canonical:{shop.folder}").hash_key()
    monkeypatch.setenv("ECOM_HASH_KEY_NEW", blank)
    with pytest.raises(InputError, match="ECOM_HASH_KEY_NEW: 1 key is blank"):
        _ = Home(path=str(tmp_path)).new_key
