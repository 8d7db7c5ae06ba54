"""The campaign has all files: a real file or a generator that it does not know would never be judged."""

from pathlib import Path

from formats.hostile import campaign, real_files

SHARED = {"drawing", "json_trees", "opcodes", "tensors"}  # by generators


def test_every_real_file_is_damaged():
    damaged = [kind.real for kind in campaign.KINDS.values()]
    assert [name for name, real in real_files.FILES.items() if real not in damaged] == []


def test_every_generator_is_run():
    folder = Path(campaign.__file__).with_name("generators")
    there = {path.stem for path in folder.glob("*.py")} - SHARED
    kinds = [name.replace("-", "_") for name in campaign.KINDS]
    assert [name for name in sorted(there) if not any(kind.startswith(name) for kind in kinds)] == []
