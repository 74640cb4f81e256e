"""Take the pictures in this folder: the report, the asset graph in a running UI and the page of a running service.

In a real headless browser. Needs a home with a finished run and Chromium (Debian: `apt-get install chromium`).
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq

from ecom_pipeline.service import folders

DOCS = Path(__file__).parent
PORT = 3117
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]


def browser() -> str:
    """Chromium, or an error that says how to get it."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        sys.exit("chromium: 1 program is missing. A browser must be installed: apt-get install chromium")
    return found


def picture(address: str, name: str, width: int, height: int, wait_seconds: int = 5) -> None:
    """Save what the browser shows after a while."""
    with tempfile.TemporaryDirectory() as profile:
        command = [browser(), *FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"]
        command += [f"--timeout={wait_seconds * 1000}", f"--virtual-time-budget={wait_seconds * 1000}"]
        subprocess.run([*command, f"--screenshot={DOCS / name}", address], check=True, capture_output=True, timeout=180)
    print(DOCS / name)


@contextmanager
def running(verb: str, home: Path, port: int, ready: str) -> Iterator[str]:
    """The address of `ecom ui` or `ecom serve` on a home, until it is stopped as a user would stop it."""
    # it stops cleanly on an interrupt only if it may receive one
    command = ["env", "--default-signal=INT", sys.executable, "-m", "ecom_pipeline.cli", verb]
    command += ["--home", str(home), "--port", str(port)]
    address = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(address + ready, timeout=2)
                break
            except OSError:
                time.sleep(1)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(60)


def take_report(home: Path) -> None:
    """The report."""
    picture((home / "reports" / "report.html").as_uri(), "report.png", 1100, 4200)


def take_asset_graph(home: Path) -> None:
    """From acts to lists; the whole graph, with search, would be too small to read."""
    lineage = "/assets/recommendations?view=lineage&lineageScope=upstream&lineageDepth=3"
    with running("ui", home, PORT, "/server_info") as address:
        picture(address + lineage, "asset_graph.png", 1700, 900, 40)


def take_service_page(home: Path) -> None:
    """A user of the published model: his history, and the lists that are made of it."""
    users = pq.read_table(home / "published" / folders.current(home / "published") / "users.parquet")["user_id"]
    with running("serve", home, PORT + 1, "/ready") as address:
        picture(f"{address}/page/user?user={users[0]}", "service_page.png", 1200, 900)


PICTURES = {"report": take_report, "asset_graph": take_asset_graph, "service_page": take_service_page}


def main() -> None:
    """All pictures, or those that are named."""
    home = Path(os.environ.get("ECOM_HOME", ".ecom")).absolute()
    for name in sys.argv[1:] or PICTURES:
        PICTURES[name](home)


if __name__ == "__main__":
    main()
