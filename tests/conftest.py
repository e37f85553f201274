"""What every test here shares: quiet, offline libraries and property tests without deadlines."""

import os

import hypothesis

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# A busy machine is no failure; on CI the same examples run every time.
hypothesis.settings.register_profile("lutc", deadline=None, derandomize=bool(os.environ.get("CI")))
hypothesis.settings.load_profile("lutc")
