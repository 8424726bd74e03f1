import sys
from pathlib import Path

# Tests are imported without their folder on the path; the cohort is shared with a process.
sys.path.insert(0, str(Path(__file__).parent))
