import sys
from pathlib import Path

# The programs are no part of the package: they are found from the checkout's root.
sys.path.insert(0, str(Path(__file__).parents[2]))
