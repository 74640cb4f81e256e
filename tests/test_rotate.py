"""Everybody gets another pseudonym at once, or nobody does."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shop import ROOT, ecom
from test_forget import journal_with

from ecom_pipeline.errors import HomeError, JournalError
from ecom_pipeline.privacy.pseudonyms import replacing
from ecom_pipeline.privacy.search import Wanted, search
from ecom_pipeline.service.journal.opening import open_database
from ecom_pipeline.service.journal.sealing import seal
from ecom_pipeline.service.journal.sqlite import SQLite
from ecom_pipeline.sources.people import keyed_hash
from resources import exchange
from resources.keyring import lock, unlock
from resources.writer import one_writer, served

OLD, NEW = (hashlib.sha256(word).digest() for word in (b"tests", b"second"))
keys = st.binary(min_size=32, max_size=32)


@given(earlier=st.lists(keys, min_size=1, max_size=4), newest=keys)
def test_earlier_keys_are_opened_by_the_newest_alone(tmp_path_factory, earlier, newest):
    file = tmp_path_factory.mktemp("chain") / "hash.chain"
    file.write_text(lock(earlier, newest))
    assert unlock(file, newest) == tuple(earlier)
    assert not any(key.hex() in file.read_text() for key in earlier)
    with pytest.raises(HomeError, match="1 key is not the one that this home was changed to last"):
        unlock(file, bytes(32) if newest != bytes(32) else b"x" * 32)


def test_only_pseudonyms_of_persons_are_hashed_again():
    person, other = keyed_hash("ann", b"old"), hashlib.md5(b"a visit").hexdigest()
    change, new = replacing({person}, (b"old", b"new")), keyed_hash("ann", (b"old", b"new"))
    assert change(f"{person} again under c1") == f"{new} again under c1"
    assert change(f'{{"visit":"{other}"}}') == f'{{"visit":"{other}"}}'
    assert change(f'{{"customer_id":"{other}"}}') == f'{{"customer_id":"{keyed_hash(other, b"new")}"}}'


@pytest.mark.parametrize("n_done", [0, 1])
def test_an_exchange_is_all_or_nothing(tmp_path, n_done):
    (tmp_path / "a").write_text("old a")
    (tmp_path / "b").mkdir()
    part = exchange.begin(tmp_path)
    (part / "a").write_text("new a")
    (part / "b").mkdir()
    (part / "b" / "x").write_text("new x")
    if not n_done:  # killed before it was decided
        exchange.finish(tmp_path)
        assert ((tmp_path / "a").read_text(), list((tmp_path / "b").iterdir())) == ("old a", [])
        return
    (tmp_path / exchange.DECIDED).write_text('{"moves": {"a": "a", "b": "b"}, "gone": ["c"]}')
    (part / "a").replace(tmp_path / "a")  # killed after the first move
    with pytest.raises(HomeError, match="was decided and broken off"):
        exchange.require_none(tmp_path)
    with one_writer(tmp_path, "whoever comes next"):
        assert (tmp_path / "b" / "x").read_text() == "new x"
    exchange.require_none(tmp_path)
    assert not part.exists()


def test_nothing_is_read_of_a_home_whose_change_of_keys_was_broken_off(finished, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(finished.home, home)
    (home / exchange.DECIDED).write_text('{"moves": {}, "gone": []}')
    refused = ecom("recommend", "--user", "person-4", home=home)
    assert (refused.returncode, "1 change of keys" in refused.stderr, refused.stdout) == (1, True, "")


def test_a_service_and_a_change_of_keys_do_not_meet(tmp_path):
    others, own = "1 service or more answers out of it", "1 process changes its keys"
    with served(tmp_path), served(tmp_path), pytest.raises(HomeError, match=others), served(tmp_path, alone=True):
        pass
    with served(tmp_path, alone=True), pytest.raises(HomeError, match=own), served(tmp_path):
        pass


@pytest.fixture
def home(finished, tmp_path):
    folder = tmp_path / "home"
    shutil.copytree(finished.home, folder)
    return folder


def test_everybody_has_another_pseudonym_and_is_known_by_the_new_key(home, monkeypatch):
    person, new = keyed_hash("person-4", OLD), keyed_hash("person-4", (OLD, NEW))
    journal_with(SQLite(home / "journal"), person, keyed_hash("person-5", OLD)).close()
    before = ecom("recommend", "--user", "person-4", home=home, check=True).stdout
    assert "1 key is missing" in ecom("rotate-key", home=home).stderr
    monkeypatch.setenv("ECOM_HASH_KEY_NEW", "second")
    ecom("rotate-key", home=home, check=True)
    assert search(home, Wanted(person)).found == {}
    assert search(home, Wanted(new)).found
    refused = ecom("recommend", "--user", "person-4", home=home)
    assert (refused.returncode, "is locked with another" in refused.stderr) == (1, True)
    monkeypatch.setenv("ECOM_HASH_KEY", "second")
    assert ecom("recommend", "--user", "person-4", home=home, check=True).stdout == before
    assert "in use already, as number 2 of 2" in ecom("rotate-key", home=home).stderr


def test_people_of_a_journal_on_a_server_have_another_pseudonym_too(home, connection, monkeypatch):
    monkeypatch.setenv("ECOM_JOURNAL", connection)
    monkeypatch.setenv("ECOM_HASH_KEY_NEW", "second")
    person, new = keyed_hash("person-4", OLD), keyed_hash("person-4", (OLD, NEW))
    database = open_database(home / "journal", connection, OLD)
    journal_with(database, person, keyed_hash("person-5", OLD)).close()
    seal(database)
    ecom("rotate-key", home=home, check=True)
    texts = [text for _, text in database.texts()]
    assert (any(person in text for text in texts), any(new in text for text in texts)) == (False, True)
    assert search(home, Wanted(person)).found == {}
    assert search(home / "journal", Wanted(new)).found
    with pytest.raises(JournalError, match="1 database is of another key"):
        open_database(home / "journal", connection, OLD).check()
    database.close()


def test_a_kill_leaves_the_home_under_one_of_the_keys(home, monkeypatch):
    monkeypatch.setenv("ECOM_HASH_KEY_NEW", "second")
    command = [sys.executable, "-m", "ecom_pipeline.cli", "rotate-key", "--home", str(home)]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ.copy())
    while not (home / exchange.PART / "warehouse.duckdb").is_file() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with one_writer(home, "the next one"):
        pass
    assert not (home / exchange.PART).exists()
    with duckdb.connect(str(home / "warehouse.duckdb")) as db:
        (n,) = db.execute("select count(*) from raw_events where user_id = ?", [keyed_hash("person-4", OLD)]).fetchone()
    assert n > 0
    assert ecom("recommend", "--user", "person-4", home=home).returncode == 0
