"""Runs a program and its tests in a process of its own that can do little else.

No network, no files written, no other processes; seconds, memory and output are limited. This keeps
a student's mistakes from doing harm. It is no wall against a program that means to break out.
"""

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from typing import NamedTuple

SECONDS = 3
MEMORY = 512 * 2**20  # bytes of address space
_OUTPUT = 10_000  # characters that are read of what a program prints

# Runs the program and its tests with what could do harm refused; says so by the token alone.
_RUNNER = """
import json, resource, sys
task = json.load(sys.stdin)
for what, most in task["limits"].items():
    resource.setrlimit(getattr(resource, "RLIMIT_" + what), (most, most))
REFUSED = ("socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn",
           "os.spawn", "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink",
           "os.truncate", "os.chmod", "os.chown", "os.kill", "os.putenv", "shutil.", "ctypes.",
           "pty.", "signal.", "resource.")
def refuse(event, arguments):
    writes = event == "open" and (
        any(c in str(arguments[1] or "r") for c in "wax+") or int(arguments[2] or 0) & 3)
    if writes or event.startswith(REFUSED):
        raise PermissionError(f"refused: {event}")
import builtins, collections, functools, itertools, math, re, string
sys.addaudithook(refuse)
space = {"__name__": "program"}
try:
    exec(task["code"], space)
    for test in task["tests"]:
        if not eval(test, space):
            print("\\nwrong: " + test)
            break
    else:
        print("\\n" + task["token"])
except BaseException as error:
    print(f"\\n{type(error).__name__}: {error}"[:300])
"""


class Verdict(NamedTuple):
    """Whether a program passes its tests, and otherwise why not."""

    passed: bool
    reason: str


def run(code: str, tests: list[str], seconds: int = SECONDS) -> Verdict:
    """Runs a program and its tests in a process of its own."""
    token = secrets.token_hex(16)
    limits = {"CPU": seconds, "AS": MEMORY, "FSIZE": 0, "CORE": 0, "NOFILE": 32}
    task = json.dumps({"code": code, "tests": tests, "token": token, "limits": limits})
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _RUNNER],
            cwd=folder,
            env={},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        try:
            printed, _ = process.communicate(task, timeout=2 * seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return Verdict(False, "out of time")
    last = printed[-_OUTPUT:].strip().rpartition("\n")[2]
    if last == token:
        return Verdict(True, "")
    if process.returncode == -signal.SIGXCPU or process.returncode == -signal.SIGKILL:
        return Verdict(False, "out of time")
    return Verdict(False, last or "it ended by itself")
