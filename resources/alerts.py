"""Where alarms go: a webhook, an e-mail, both or neither; settings come from the environment alone."""

import http.client
import json
import os
import smtplib
import ssl
import urllib.request
from collections.abc import Callable, Mapping
from email.message import EmailMessage
from typing import Any

import dagster as dg
from pydantic import Field

from ecom_pipeline.errors import InputError


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Where a redirect leads, a POST arrives as a GET, and the alarm is lost: it counts as refused."""

    def redirect_request(self, *_: Any) -> None:
        """Follow none."""


SMTPS = 465
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
        """POST JSON: `text`, which chat services show, and `subject` and `alarms`.

        Raises:
            OSError: if the receiver does not take it, or answers with a redirect or no HTTP.
            InputError: if the address is none; it is a secret, and not told.
        """
        address = os.environ["ECOM_ALERT_WEBHOOK"]
        if not address.startswith(("https://", "http://")):
            raise InputError(
                "ECOM_ALERT_WEBHOOK: 1 address is of another kind. It must begin with https:// or http://: set the whole address."
            )
        body = {"text": "\n".join([subject, *lines]), "subject": subject, "alarms": lines}
        request = urllib.request.Request(
            address, json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST"
        )
        try:
            with urllib.request.build_opener(_NoRedirect).open(request, timeout=self.patience_seconds):
                pass
        except (http.client.InvalidURL, ValueError) as error:
            raise InputError(
                f"ECOM_ALERT_WEBHOOK: 1 address cannot be asked ({type(error).__name__}). It must be one as a browser takes it, with "
                "blanks and letters beyond ASCII written as %20 and the like: set it so."
            ) from None  # what was wrong names the address, which is a secret
        except http.client.HTTPException as error:
            raise OSError(f"the receiver answers no HTTP: {type(error).__name__}") from error

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
        with self._mail_server(host, int(port)) as server:
            server.ehlo()
            encrypted = isinstance(server, smtplib.SMTP_SSL)
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

    def _mail_server(self, host: str, port: int) -> smtplib.SMTP:
        """Encrypted from the first byte on the port that is for that; whose certificate nobody has signed is refused."""
        if port == SMTPS:
            return smtplib.SMTP_SSL(host, port, timeout=self.patience_seconds, context=ssl.create_default_context())
        return smtplib.SMTP(host, port, timeout=self.patience_seconds)
