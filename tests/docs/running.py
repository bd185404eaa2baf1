"""Runs the code blocks of a page as a reader would: in order, in one folder, commands and Python and all.

`evomerge` runs in this process (importing torch once for all of them, and not for every command), other commands in a
shell. What a block prints is kept, so that an output shown in the page can be compared with it, loosely.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from evomerge.cli.main import run as run_evomerge
from evomerge.study.job import load_job
from evomerge.study.prepare import prepare
from tests.docs.markdown import Block
from tests.support.endpoint import Answer, ChatServer

FEW = {"search": 6, "select": 6, "test": 6}
SKILLS = (0.6, 0.7, 0.8)
"""Shares of right answers of the models behind addresses, in the order in which a page names them."""
STOPPED = 75
COMMENT = re.compile(r"(^|\s)#.*")
NUMBER = re.compile(r"[-+]?\d[\d,.]*")


class Reader:
    """Somebody who reads a page in `folder` and does what it says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.printed = ""
        self.servers: dict[str, ChatServer] = {}

    def close(self) -> None:
        """Stop the servers that pages named."""
        for server in self.servers.values():
            server.close()

    def do(self, block: Block) -> None:
        """Run one block. Raises AssertionError, naming page and line, where it does not do what the page says."""
        if block.said("skip"):
            assert block.said("skip") != [""], f"{block}: skipping needs a reason"
            return
        for old, new in (arguments.split() for arguments in block.said("replace")):
            assert old in block.text, f"{block}: there is no {old} to replace"
            block = replace(block, text=block.text.replace(old, new))
        for url, name in (arguments.split() for arguments in block.said("served")):
            if url not in self.servers:
                self.servers[url] = ChatServer(knowing(self.folder / name, len(self.servers)))
            block = replace(block, text=block.text.replace(url, self.servers[url].url))
        self._shrink(block)
        self._try(block)

    def _shrink(self, block: Block) -> None:
        """Make the jobs small that the block says are to be, as soon as they are there."""
        for name, trials in (arguments.split() for arguments in block.said("small")):
            if (self.folder / name).exists():
                make_small(self.folder / name, int(trials))

    def _try(self, block: Block) -> None:
        match block.language:
            case "bash" | "console":
                self._commands(block)
            case "python" if block.said("file"):
                self._write(block)
            case "python":
                self._python(block)
            case "yaml":
                self._yaml(block)
            case "text":
                if block.said("output"):
                    compare(block, block.text, self.printed)
            case _:
                raise AssertionError(f"{block}: a block needs a language: bash, console, python, yaml or text")

    def _write(self, block: Block) -> None:
        (name,) = block.said("file")
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8")

    def _yaml(self, block: Block) -> None:
        if block.said("file"):
            self._write(block)
            return
        assert block.said("job"), f"{block}: YAML is either a file or keys of a job; say which"
        (name,) = block.said("job")
        written: dict[str, Any] = yaml.safe_load((self.folder / name).read_text(encoding="utf-8"))
        trial = (self.folder / name).with_name("with-these-keys.yaml")
        trial.write_text(yaml.safe_dump(written | yaml.safe_load(block.text)), encoding="utf-8")
        prepare(load_job(trial))
        trial.unlink()

    def _python(self, block: Block) -> None:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block.text, str(block), "exec"), {"__name__": "__main__"})  # noqa: S102  # the page's own code
        self.printed = printed.getvalue()

    def _commands(self, block: Block) -> None:
        commands, shown = self._split(block)
        instead = block.said("instead")
        expected = int(next(iter(block.said("exit")), "0"))
        self.printed = ""
        for command in instead or commands:
            words = shlex.split(COMMENT.sub("", command))
            if not words:
                continue
            if block.said("interrupt"):
                code, output = interrupted(words)
                expected = STOPPED
            else:
                code, output = evomerge(words[1:]) if words[0] == "evomerge" else shell(command)
            assert code == expected, f"{block}: `{command}` ended with {code}:\n{output}"
            self.printed += output
            self._shrink(block)
        if shown:
            compare(block, shown, self.printed)

    def _split(self, block: Block) -> tuple[list[str], str]:
        """The commands of a block, and the output that is shown with them."""
        text = block.text.replace("\\\n", " ")
        if block.language == "bash":
            return text.splitlines(), ""
        lines = text.splitlines()
        commands = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        return commands, "\n".join(line for line in lines if not line.startswith("$ "))


def knowing(file: Path, number: int) -> Answer:
    """A model that gives a share of the answers of a data file right; which ones, its number decides."""
    items = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    answers = {item["question"].strip(): item["answer"] for item in items}

    def answer(prompt: str) -> str:
        right = answers[prompt.splitlines()[0].strip()]
        dice = random.Random(f"{number} {prompt}")
        return right if dice.random() < SKILLS[number] else "".join(dice.sample(right, len(right)))

    return answer


def evomerge(arguments: list[str]) -> tuple[int, str]:
    """Run a command of ours in this process; return its exit code and what it printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        code = run_evomerge(arguments)
    return code, printed.getvalue()


def shell(command: str) -> tuple[int, str]:
    """Run any other command."""
    place = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", command],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, env=os.environ | place,
    )  # fmt: skip
    return done.returncode, done.stdout


def interrupted(words: list[str]) -> tuple[int, str]:
    """Run a command in a process of its own, and interrupt it as soon as it tells of a trial."""
    program = [sys.executable, "-m", *words]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("trial 1/"):
                process.send_signal(signal.SIGINT)
    return process.returncode, "".join(lines)


def make_small(job: Path, trials: int) -> None:
    """Give a job that many trials and few items; everything else in it stays."""
    written: dict[str, Any] = yaml.safe_load(job.read_text(encoding="utf-8"))
    written["search"] = written.get("search", {}) | {"trials": trials}
    written["splits"] = FEW
    written["selection"] = {"finalists": 1}
    job.write_text(yaml.safe_dump(written, sort_keys=False), encoding="utf-8")


def compare(block: Block, shown: str, printed: str) -> None:
    """Every line that is shown was printed, in this order, whatever its numbers; `…` stands for anything."""
    vary = block.said("varies")
    there = iter([shape(line) for line in printed.splitlines()])
    for line in shown.splitlines():
        if not shape(line) or any(re.search(pattern, line) for pattern in vary):
            continue
        pattern = re.compile(".*".join(map(re.escape, shape(line).split("…"))))
        assert any(pattern.fullmatch(candidate) for candidate in there), (
            f"{block}: this line is shown and was not printed (or not in this order):\n{line}\nPrinted was:\n{printed}"
        )


def shape(line: str) -> str:
    """A line without its numbers and differences of white space; of a line of a table the first cell."""
    first = re.split("[│┃]", re.sub("[─━╇┼╋]+", "", line))[0]
    return " ".join(NUMBER.sub("#", first).split())
