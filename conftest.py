"""Leave out the tests of libraries that an environment lacks; `make test-mmdet` has MMDetection."""

from __future__ import annotations

import importlib.util

collect_ignore = (
    []
    if importlib.util.find_spec("mmdet")
    else ["rlawrap/integrations/mmdet", "tests/integrations/mmdet"]
)
