"""Cold `habitlab report` against the same notebooks run one after another by plain papermill, and the call after it.

    python benchmarks/report_build.py [--notebooks DIR] [--data PATH] [--repeats 3] [--generated]

Both sides start from an empty cache in a process of their own, turn about, so that other work on the machine falls on
both. Plain papermill makes no page, so the comparison is in its favour. Without notebooks or data (or with
`--generated`) three small notebooks are made that import the usual libraries and compute for a second or two.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WANTED = {3: 1.4, 6: 1.8}  # number of notebooks -> times faster

PLAIN = """
import sys, papermill
for path in sys.argv[2:]:
    parameters = {"data": sys.argv[1]} if sys.argv[1] else {}
    papermill.execute_notebook(path, None, parameters=parameters, progress_bar=False, cwd=path.rpartition("/")[0])
"""
OURS = """
import json, sys
from pathlib import Path
from habitlab.cli import PRELOAD
from habitlab.report.build import build_reports
result = build_reports((), notebooks_dir=Path(sys.argv[2]), out=Path(sys.argv[3]), data=sys.argv[1] or None,
                       preload=PRELOAD, progress=False)
print(json.dumps([[report.name, report.status, report.error] for report in result.reports]))
sys.exit(result.exit_code)
"""
CELLS = (
    "import matplotlib.pyplot as plt\nimport numpy as np\nimport pandas as pd\nimport seaborn as sns",
    "rng = np.random.default_rng(seed)\n"
    "frame = pd.DataFrame({'x': rng.normal(size=300_000), 'g': rng.integers(0, 500, 300_000)})",
    "means = [frame.sample(frac=1, replace=True, random_state=n).groupby('g')['x'].mean().std() for n in range(25)]",
    "sns.histplot(means)\nplt.show()\nprint(f'{np.mean(means):.3g}')",
)


def generate(folder: Path, number: int) -> Path:
    """Write small notebooks of the usual kind."""
    folder.mkdir()
    empty = {"cell_type": "code", "execution_count": None, "outputs": []}
    for report in range(1, number + 1):
        cells = [
            {**empty, "id": f"c{n}", "metadata": {}, "source": cell} for n, cell in enumerate(("seed: int = 0", *CELLS))
        ]
        cells[0]["metadata"] = {"tags": ["parameters"]}
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        notebook = {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
        (folder / f"{report:02d}-generated.ipynb").write_text(json.dumps(notebook))
    return folder


def timed(code: str, *arguments: str, cache: Path) -> tuple[float, str]:
    """Seconds of a whole process, and what it printed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["HABITLAB_CACHE"] = str(cache)
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"a run failed:\n{done.stdout}{done.stderr}")
    return seconds, done.stdout


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--notebooks", type=Path, default=ROOT / "notebooks")
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "habittrack.db")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--generated", type=int, nargs="?", const=3, default=0, metavar="NUMBER")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch_name:
        scratch = Path(scratch_name)
        notebooks, data = given.notebooks.absolute(), str(given.data.absolute())
        if given.generated or not list(notebooks.glob("[0-9][0-9]-*.ipynb")) or not given.data.exists():
            notebooks, data = generate(scratch / "generated", given.generated or 3), ""
        paths = [str(path) for path in sorted(notebooks.glob("[0-9][0-9]-*.ipynb"))]
        plain, ours, again = [], [], []
        for number in range(given.repeats):
            cache, out = scratch / f"cache-{number}", str(scratch / f"out-{number}")
            plain.append(timed(PLAIN, data, *paths, cache=scratch / f"plain-{number}")[0])
            ours.append(timed(OURS, data, str(notebooks), out, cache=cache)[0])
            seconds, said = timed(OURS, data, str(notebooks), out, cache=cache)
            if {status for _, status, _ in json.loads(said)} != {"cached"}:
                sys.exit(f"the second call ran something: {said}")
            again.append(seconds)
            print(
                f"  plain papermill {plain[-1]:6.1f} s   habitlab {ours[-1]:6.1f} s   again {again[-1]:5.2f} s",
                flush=True,
            )
        run = json.loads((Path(out) / "run.json").read_text())
        peaks = [report["peak_memory"] for report in run["reports"].values()] + [run["peak_memory_of_build"]]
        ratio = statistics.median(slow / fast for slow, fast in zip(plain, ours, strict=True))
        wanted = WANTED[max((count for count in WANTED if count <= len(paths)), default=3)]
        print(f"{len(paths)} notebooks ({notebooks.name}): {ratio:.2f} times faster than papermill (wanted {wanted})")
        print(f"nothing changed: {statistics.median(again):.2f} s (wanted: under 2)")
        print(f"peak memory of any process: {max(peak for peak in peaks if peak) / 2**20:.0f} MB (wanted: under 1536)")


if __name__ == "__main__":
    main()
