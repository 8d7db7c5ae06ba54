"""Which files here are tests of this process."""

import os

# Those of Keras run in processes of their own, one for each backend, which test_keras_optimize.py starts.
collect_ignore_glob = [] if "FLAVOUR" in os.environ else ["keras_*.py"]
