"""Programs, run as files or as modules (`python -m benchmarks.rpc`).

They import each other by their plain names, as a file that is run does.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
