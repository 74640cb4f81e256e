"""An alarm reaches real receivers once: a web server and a mail server that listen on this machine."""

import http.server
import json
import socket
import ssl
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress

import dagster as dg
import pytest
from test_watching import N_DAYS, add_days, make_days, watched

from assets.automation import drift_alert
from ecom_pipeline.errors import InputError
from resources.alerts import Alerts
from resources.warehouse import Warehouse


@contextmanager
def web_server(status: int = 200, **headers: str):
    """Its address, and what was posted to it."""
    got: list[dict] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def do_GET(self):
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/hook", got
        server.shutdown()


@contextmanager
def mail_server(host: str = "127.0.0.1"):
    """Its address, and the mails that it took, as they came over the wire: the least of RFC 5321."""
    got: list[str] = []

    def talk(client: socket.socket) -> None:
        with client, client.makefile("rwb", buffering=0) as wire:
            wire.write(b"220 here\r\n")
            while line := wire.readline().decode().strip().upper():
                if line == "DATA":
                    wire.write(b"354 go on\r\n")
                    got.append("".join(iter(lambda: wire.readline().decode(), ".\r\n")))
                wire.write(b"221 bye\r\n" if line == "QUIT" else b"250 well\r\n")

    with socket.create_server((host, 0)) as server:

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with suppress(ConnectionError):  # who came for another protocol hangs up
                    talk(client)

        threading.Thread(target=serve, daemon=True).start()
        yield f"{host}:{server.getsockname()[1]}", got


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory):
    """A shop whose last day lost half of its events."""
    made = Warehouse(path=str(tmp_path_factory.mktemp("home") / "warehouse.duckdb"))
    with made.connect() as db:
        make_days(db=db)
        add_days(db, {N_DAYS: 90})
        watched(db)
    return made


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    for name in ("WEBHOOK", "EMAIL", "SMTP", "FROM", "SMTP_USER", "SMTP_PASSWORD"):
        monkeypatch.delenv(f"ECOM_ALERT_{name}", raising=False)


def ask(instance, warehouse, cursor=None):
    resources = {"warehouse": warehouse, "alerts": Alerts(patience_seconds=5)}
    with dg.build_sensor_context(instance, cursor=cursor, resources=resources) as context:
        return drift_alert(context).skip_message, context.cursor


def test_both_receivers_are_told_once_and_one_that_fails_again(warehouse, monkeypatch):
    with dg.instance_for_test() as instance, mail_server() as (smtp, mails):
        monkeypatch.setenv("ECOM_ALERT_EMAIL", "team@example.com")
        monkeypatch.setenv("ECOM_ALERT_SMTP", smtp)
        with web_server(status=500) as (address, _):
            monkeypatch.setenv("ECOM_ALERT_WEBHOOK", address)
            message, cursor = ask(instance, warehouse)
        assert "webhook failed and is tried again" in message
        assert len(mails) == 1
        with web_server() as (address, posts):
            monkeypatch.setenv("ECOM_ALERT_WEBHOOK", address)
            _, cursor = ask(instance, warehouse, cursor)
            again, _ = ask(instance, warehouse, cursor)
    assert again == "webhook: 0 alarms sent; e-mail: 0 alarms sent"
    assert len(posts) == len(mails) == 1
    (post,), (mail,) = posts, mails
    assert any("events is 90" in line for line in post["alarms"])
    assert "To: team@example.com" in mail
    assert "events is 90" in mail


def test_without_a_receiver_nothing_is_read(tmp_path):
    with dg.instance_for_test() as instance:
        message, _ = ask(instance, Warehouse(path=str(tmp_path / "none.duckdb")))
    assert message.startswith("no receiver is set")
    assert not (tmp_path / "none.duckdb").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have one loopback address")
def test_a_password_is_not_sent_in_the_clear(monkeypatch):
    monkeypatch.setenv("ECOM_ALERT_EMAIL", "team@example.com")
    monkeypatch.setenv("ECOM_ALERT_SMTP_USER", "me")
    monkeypatch.setenv("ECOM_ALERT_SMTP_PASSWORD", "secret")
    with mail_server("127.0.0.2") as (smtp, mails):  # this machine, under a name that is not known to be
        monkeypatch.setenv("ECOM_ALERT_SMTP", smtp)
        with pytest.raises(InputError, match="1 server takes no encryption"):
            Alerts(patience_seconds=5).receivers["e-mail"]("subject", ["line"])
    assert mails == []


def test_a_redirect_takes_no_alarm_as_it_would_arrive_empty(monkeypatch):
    with web_server(302, Location="/login") as (address, posts):
        monkeypatch.setenv("ECOM_ALERT_WEBHOOK", address)
        with pytest.raises(OSError, match="302"):
            Alerts(patience_seconds=5).receivers["webhook"]("subject", ["line"])
    assert len(posts) == 1


def test_a_receiver_that_speaks_no_http_does_not_keep_the_mail_from_going(warehouse, monkeypatch):
    with dg.instance_for_test() as instance, mail_server() as (smtp, mails), mail_server() as (other, _):
        monkeypatch.setenv("ECOM_ALERT_EMAIL", "team@example.com")
        monkeypatch.setenv("ECOM_ALERT_SMTP", smtp)
        monkeypatch.setenv("ECOM_ALERT_WEBHOOK", f"http://{other}/hook")
        message, _ = ask(instance, warehouse)
    assert "webhook failed and is tried again: the receiver answers no HTTP" in message
    assert len(mails) == 1


@pytest.mark.parametrize("path", ["secret path", "sécret"])
def test_an_address_that_is_none_is_refused_and_not_told(monkeypatch, path):
    monkeypatch.setenv("ECOM_ALERT_WEBHOOK", f"http://127.0.0.1:9/{path}")
    with pytest.raises(InputError, match="1 address cannot be asked") as refused:
        Alerts(patience_seconds=5).receivers["webhook"]("subject", ["line"])
    assert "cret" not in str(refused.value).replace("secret,", "")
    assert refused.value.__suppress_context__


def test_a_server_with_a_certificate_of_its_own_making_gets_no_password(tmp_path, monkeypatch):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def shake_hands() -> None:
            client, _ = server.accept()
            with client, suppress(OSError):
                context.wrap_socket(client, server_side=True)

        threading.Thread(target=shake_hands, daemon=True).start()
        monkeypatch.setattr("resources.alerts.SMTPS", server.getsockname()[1])
        monkeypatch.setenv("ECOM_ALERT_EMAIL", "team@example.com")
        monkeypatch.setenv("ECOM_ALERT_SMTP", f"127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(ssl.SSLCertVerificationError):
            Alerts(patience_seconds=5).receivers["e-mail"]("subject", ["line"])
