"""Property tests have no deadline: how long an example takes says nothing about a formula."""

from hypothesis import settings

settings.register_profile("no deadline", deadline=None, max_examples=60)
settings.load_profile("no deadline")
