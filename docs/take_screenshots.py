"""Take the pictures in this folder: the asset graph in a running UI and the report, in a real headless browser.

Needs a home with a finished run and Chromium (Debian: `apt-get install chromium`).
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

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


def main() -> None:
    """Both pictures."""
    home = Path(os.environ.get("ECOM_HOME", ".ecom")).absolute()
    picture((home / "reports" / "report.html").as_uri(), "report.png", 1100, 4200)
    # the UI stops cleanly on an interrupt only if it may receive one
    command = [
        "env",
        "--default-signal=INT",
        sys.executable,
        "-m",
        "ecom_pipeline.cli",
        "ui",
        "--home",
        home,
        "--port",
        PORT,
    ]
    ui = subprocess.Popen([str(part) for part in command], start_new_session=True, stderr=subprocess.DEVNULL)
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{PORT}/server_info", timeout=2)
                break
            except OSError:
                time.sleep(1)
        # from acts to lists; the whole graph, with search, would be too small to read
        lineage = "assets/recommendations?view=lineage&lineageScope=upstream&lineageDepth=3"
        picture(f"http://127.0.0.1:{PORT}/{lineage}", "asset_graph.png", 1700, 900, 40)
    finally:
        os.killpg(ui.pid, signal.SIGINT)
        ui.wait(60)


if __name__ == "__main__":
    main()
