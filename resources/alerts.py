"""Where alarms go: a webhook, an e-mail, both or neither; settings come from the environment alone."""

import json
import os
import smtplib
import ssl
import urllib.request
from collections.abc import Callable, Mapping
from email.message import EmailMessage

import dagster as dg
from pydantic import Field

from ecom_pipeline.errors import InputError

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Alerts(dg.ConfigurableResource):
    """Receivers of alarms. Addresses and secrets are read when a message is sent: a field would stand in Dagster's history."""

    patience_seconds: float = Field(default=10, gt=0, description="How long a receiver may take.")

    @property
    def receivers(self) -> Mapping[str, Callable[[str, list[str]], None]]:
        """What sends a subject and its lines, by name; only those that are set."""
        known = {"webhook": ("ECOM_ALERT_WEBHOOK", self._post), "e-mail": ("ECOM_ALERT_EMAIL", self._mail)}
        return {name: send for name, (variable, send) in known.items() if os.environ.get(variable)}

    def _post(self, subject: str, lines: list[str]) -> None:
        """POST JSON: `text`, which chat services show, and `subject` and `alarms`. A redirect or an error raises OSError."""
        address = os.environ["ECOM_ALERT_WEBHOOK"]
        if not address.startswith(("https://", "http://")):
            raise InputError(
                "ECOM_ALERT_WEBHOOK: 1 address is of another kind. It must begin with https:// or http://: set the whole address."
            )
        body = {"text": "\n".join([subject, *lines]), "subject": subject, "alarms": lines}
        request = urllib.request.Request(
            address, json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST"
        )
        with urllib.request.urlopen(request, timeout=self.patience_seconds):
            pass

    def _mail(self, subject: str, lines: list[str]) -> None:
        """Send a plain text; encrypted where the server can, and a password never otherwise but on this machine."""
        host, _, port = os.environ.get("ECOM_ALERT_SMTP", "localhost:25").rpartition(":")
        message = EmailMessage()
        message["Subject"], message["To"] = subject, os.environ["ECOM_ALERT_EMAIL"]
        message["From"] = os.environ.get("ECOM_ALERT_FROM") or os.environ["ECOM_ALERT_EMAIL"]
        message.set_content("\n".join(lines))
        if not (host and port.isdigit()):
            raise InputError(
                "ECOM_ALERT_SMTP: 1 address is incomplete. It must be HOST:PORT, such as mail.example.com:587: set it so."
            )
        kind = smtplib.SMTP_SSL if port == "465" else smtplib.SMTP
        with kind(host, int(port), timeout=self.patience_seconds) as server:
            server.ehlo()
            encrypted = port == "465"
            if not encrypted and server.has_extn("starttls"):
                server.starttls(context=ssl.create_default_context())
                encrypted = True
            if user := os.environ.get("ECOM_ALERT_SMTP_USER"):
                if not encrypted and host not in _LOOPBACK:
                    raise InputError(
                        "ECOM_ALERT_SMTP: 1 server takes no encryption. A password must not be sent in the clear: choose a "
                        "server with STARTTLS or port 465, or unset ECOM_ALERT_SMTP_USER."
                    )
                server.login(user, os.environ.get("ECOM_ALERT_SMTP_PASSWORD", ""))
            server.send_message(message)
