"""No test writes into the user's cache; compiled kernels alone are taken from it, and kept there."""

import os
import tempfile

from platformdirs import user_cache_path

os.environ.setdefault("NUMBA_CACHE_DIR", str(user_cache_path("bitwright")))
_cache = tempfile.TemporaryDirectory(prefix="bitwright-tests-", ignore_cleanup_errors=True)
os.environ["XDG_CACHE_HOME"] = _cache.name
