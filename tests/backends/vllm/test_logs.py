from evomerge.backends.vllm.logs import Progress, Reason, reason

REFUSED = """\
(APIServer pid=5) INFO 11-23 11:09:21 [model.py:733] Resolved architecture: LlamaForCausalLM
Traceback (most recent call last):
  File "x.py", line 121, in __init__
pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
  Value error, User-specified max_model_len (128) is greater than 64. [type=value_error, input_value=ArgsKwargs((), {})]
    For further information visit an address
resource_tracker: There appear to be 2 leaked objects
"""
NO_ROOM = """\
(EngineCore pid=7) ERROR 11-23 11:10:41 [core.py:402] Traceback (most recent call last):
(EngineCore pid=7) ERROR 11-23 11:10:41 [core.py:402] ValueError: Free memory on device is less than desired
(EngineCore pid=7) RuntimeError: WorkerProc initialization failed due to an exception in a background process.
Traceback (most recent call last):
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""


def test_a_refused_argument_is_told_as_it_was_said_and_for_good() -> None:
    assert reason(REFUSED, 1) == Reason("User-specified max_model_len (128) is greater than 64.", permanent=True)


def test_an_unknown_argument_is_told_for_good() -> None:
    said = "usage: api_server.py [-h]\napi_server.py: error: unrecognized arguments: --foo\n"
    assert reason(said, 2) == Reason("unrecognized arguments: --foo", permanent=True)


def test_the_first_cause_is_told_and_not_who_heard_of_it() -> None:
    assert reason(NO_ROOM, 1) == Reason("Free memory on device is less than desired", permanent=False)


def test_a_server_that_was_killed_says_so() -> None:
    assert reason("loading\n", 137) == Reason("it was ended by signal 9", permanent=False)


def test_a_server_that_says_nothing_telling_is_quoted() -> None:
    assert reason("one\ntwo\n\n", 3).sentence == "it ended with exit code 3, and last printed: two"
    assert reason("", 0).sentence == "it ended with exit code 0, and last printed: it printed nothing"


def test_what_is_told_has_an_end() -> None:
    assert len(reason(f"ValueError: {'x' * 10_000}", 1).sentence) == 400


def test_each_stage_is_told_once() -> None:
    progress = Progress()
    said = "Resolved architecture: LlamaForCausalLM\n"
    assert list(progress.new(said)) == ["it knows the model"]
    assert list(progress.new(said + "Starting to load model x\n")) == ["it loads the weights"]
    assert list(progress.new(said)) == []
