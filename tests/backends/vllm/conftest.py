"""The servers of these tests: a stand-in, and the real one."""

from tests.support.vllm import stand_in, vllm_python

__all__ = ["stand_in", "vllm_python"]
