"""JupyterLab opens on the notebooks."""

import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.long


def test_jupyterlab_opens_on_the_notebooks(tmp_path: Path) -> None:
    call = [sys.executable, "-m", "jupyterlab", "notebooks", "--no-browser", "--port=0", "--allow-root"]
    environment = os.environ | {"JUPYTER_CONFIG_DIR": str(tmp_path), "JUPYTER_RUNTIME_DIR": str(tmp_path)}
    log = tmp_path / "log"
    with log.open("wb") as said:
        server = subprocess.Popen(call, cwd=ROOT, env=environment, stdout=said, stderr=said)
    try:
        for _ in range(240):
            if found := re.search(r"http://(?:localhost|127\.0\.0\.1):\d+/lab\?token=\w+", log.read_text("utf-8")):
                break
            assert server.poll() is None, log.read_text("utf-8")
            time.sleep(0.25)
        assert found, log.read_text("utf-8")
        with urllib.request.urlopen(found[0], timeout=30) as page:
            assert b"JupyterLab" in page.read()
        with urllib.request.urlopen(found[0].replace("/lab?", "/api/contents/?"), timeout=30) as answer:
            assert b"01-data-quality.ipynb" in answer.read()
    finally:
        server.terminate()
        server.wait(30)
