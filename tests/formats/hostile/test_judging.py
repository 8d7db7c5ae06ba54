"""The judge itself: what a reader must not do is found."""

import json
import subprocess
import sys

import pytest
from formats.hostile import judging

MISDEEDS = {  # what a reader does with a path, and what is said of it
    "another file is opened": ("open('/etc/passwd').close()", "it has done open ('/etc/passwd'"),
    "the file is written": ("open(path, 'ab').close()", "it has done open"),
    "a program is run": ("subprocess.run(['true'])", "it has done subprocess.Popen"),
    "the shell is run": ("os.system('true')", "it has done os.system"),
    "this process is forked": ("os.fork() or os._exit(0)", "it has done os.fork"),
    "a socket is made": ("socket.socket().close()", "it has done socket.__new__"),
    "a module is imported": ("import wave", "it has done import ('wave'"),
    "code is run": ("exec('1 + 1')", "it has done compile"),
    "a pickle is loaded": ("pickle.loads(b'cos\\nsystem\\n.')", "it has done pickle.find_class"),
    "much memory is taken": ("b'x' * (50 << 20)", "it takes 52"),
    "no path is said": ("raise fastgru.FormatError('damaged')", "does not begin with the path: damaged"),
    "another error is raised": ("raise KeyError('units')", "KeyError: 'units'"),
    "no layer is made": ("return {}", "AssertionError: "),
    "a weight is NaN": (
        "layer.set_weights([w * float('nan') for w in layer.get_weights()])",
        "AssertionError: ",
    ),
    "nothing": ("pass", "loaded"),
}
PROGRAM = """
import json, os, pickle, socket, subprocess, sys
from pathlib import Path
import numpy as np
import fastgru
from formats.hostile import judging

judging.prepare()
watch = judging.Watch()
path = Path(sys.argv[1])
for deed in json.loads(sys.argv[2]):
    layer = fastgru.GRU(2, name="gru")
    layer(np.zeros((1, 1, 2), np.float32))
    own = {}
    exec(f"def load_all(path):\\n    {deed}\\n    return {{'gru': layer}}", globals(), own)
    fastgru.load_all = own["load_all"]
    try:
        outcome, _ = judging.judge_confined(watch, [path], {})
    except Exception as error:
        outcome = f"{type(error).__name__}: {error}"
    print(json.dumps(outcome))
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    path = tmp_path_factory.mktemp("judged") / "model.npz"
    path.write_bytes(b"x")
    tests = judging.__file__.removesuffix("formats/hostile/judging.py")
    deeds = json.dumps([deed for deed, _ in MISDEEDS.values()])
    run = [sys.executable, "-c", f"import sys; sys.path.insert(0, {tests!r})\n{PROGRAM}", str(path), deeds]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(zip(MISDEEDS, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("name", MISDEEDS)
def test_a_misdeed_is_found(name, outcomes):
    assert MISDEEDS[name][1] in outcomes[name]
