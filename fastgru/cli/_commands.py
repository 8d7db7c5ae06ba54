"""The arguments and the help of the commands.

Each command runs in a module of its name, imported when it runs, so that help and completion need no NumPy.
"""

from pathlib import Path
from typing import Any

import click
from click.shell_completion import get_completion_class

from fastgru import __version__

PATH = click.Path(path_type=Path)
PICTURES = (".png", ".svg", ".pdf")
SHELLS = ("bash", "zsh", "fish")

model = click.argument("model", type=PATH)
layer = click.option(
    "--layer", metavar="NAME", help="Which one, if there are several; 'fastgru inspect' lists them."
)
whole = click.option("--whole", is_flag=True, help="Take the whole network, not its GRU layers.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="fastgru")
@click.option("--debug", is_flag=True, expose_value=False, help="Show where an error comes from.")
def fastgru() -> None:
    """GRU layers of trained models: look at them, run, convert, measure and compare them.

    \b
    Example:
      fastgru inspect model.keras

    A MODEL is any file that fastgru.load reads: Keras' .keras and .h5, ONNX, PyTorch's .safetensors, .pt and
    .npz, fastgru's own .npz. The format is recognised by the content. Nothing in a file is run except by
    'compare', which lets the model's own runtime read it.
    """


@fastgru.command(short_help="List the GRU layers in a file.")
@model
@click.option(
    "--measure", is_flag=True, help="Also the engine, and the microseconds that a step of one row takes."
)
@whole
def inspect(whole: bool, **given: Any) -> None:
    """Print a table of the GRU layers in MODEL.

    "reset" says whether the reset gate is applied after or before the recurrent product; "activations" are
    those of the state and of the gates; "axes" is the order of axes in which 'fastgru run' takes inputs;
    "bytes packed" is the size of the weights as the engine reads them.

    \b
    Examples:
      fastgru inspect model.keras
      fastgru inspect --measure model.onnx
      fastgru inspect --whole model.keras
    """
    from fastgru.cli import _inspect, _whole

    (_whole if whole else _inspect).inspect(**given)


@fastgru.command(short_help="Run a layer over a file of sequences.")
@model
@click.argument("sequences", metavar="INPUT", type=click.Path(path_type=Path, allow_dash=True))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, allow_dash=True, readable=False),
    required=True,
    metavar="OUT",
    help="Where to write; '-' is standard output.",
)
@layer
@click.option(
    "--lengths",
    type=PATH,
    metavar="L",
    help="How many timesteps each row has, from the first one on: an .npy file, or a column of Parquet.",
)
@click.option(
    "--states",
    type=PATH,
    metavar="S.npz",
    help="An initial state for each GRU, as numpy.savez writes arrays.",
)
@click.option(
    "--batch", type=click.IntRange(min=1), metavar="N", help="Rows at a time; by default what suits the file."
)
@click.option(
    "--dtype",
    metavar="DTYPE",
    help="Of layer and output: float32, float64 or float16; by default the file's.",
)
@click.option("--weights-dtype", metavar="DTYPE", help="float16 or int8: keep the weights in fewer bits.")
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="NAME",
    help="The column of Parquet that is the input; several times for a feature each.",
)
@click.option("--keep", multiple=True, metavar="NAME", help="A column of Parquet to copy to the output.")
@click.option(
    "--part-size",
    type=click.IntRange(min=1),
    metavar="MB",
    help="Of a part of a job: 16 by default of arrays, 8 of Parquet.",
)
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Processes on this machine.")
@click.option("--scheduler", metavar="ADDRESS", help="A cluster of Dask, such as tcp://host:8786.")
@click.option(
    "--resume-state",
    type=PATH,
    metavar="STATE.npz",
    help="INPUT goes on where STATE.npz says that the sequences are, which is then written anew.",
)
@whole
def run(whole: bool, **given: Any) -> None:
    """Run a layer of MODEL over the sequences in INPUT: .npy, Zarr, Parquet, or a folder of files of these.

    An array of .npy or Zarr has the shape (batch, timesteps, features), or (timesteps, batch, features) if
    'fastgru inspect' says so. It may be larger than memory; '-' is standard input. The output is written
    whole or not at all.
    With --whole, INPUT has the shape of the model's input, and --batch rows at a time are in memory.

    In Parquet, a row is a sequence: a list of lists of features. The output is a folder of Parquet files.
    Jobs over Parquet, Zarr and folders, and those of several workers, are done in parts, in OUT.unfinished,
    which becomes OUT in the end: the same command goes on where one was stopped.

    With --resume-state, INPUT is the next part of sequences, or a folder of parts in the order of their
    names. In Parquet a row is then a timestep, and a column a feature. Outputs have the bits of one call.

    \b
    Examples:
      fastgru run model.keras frames.npy -o outputs.npy
      fastgru run --whole model.keras frames.zarr -o outputs.zarr --workers 2
      fastgru run --whole model.keras table.parquet -o outputs.parquet --column frames --keep id
      fastgru run --whole model.keras 2026-12-01.npy -o out-12-01.npy --resume-state sensor.npz
      fastgru run model.onnx frames.npy -o outputs.npy --layer gru_1 --lengths lengths.npy
      cat frames.npy | fastgru run model.npz - -o - > outputs.npy
    """
    from fastgru.cli import _run, _whole

    if _is_of_parts(**given):
        from fastgru.cli import _job

        _job.run(whole, **given)
        return
    for name in ("columns", "keep", "part_size", "workers", "scheduler", "resume_state"):
        del given[name]
    (_whole if whole else _run).run(**given)


def _is_of_parts(sequences: Path, output: Path, **given: Any) -> bool:
    """True of a job that is not one call over an .npy file."""
    asked = any(
        given[name] for name in ("columns", "keep", "part_size", "workers", "scheduler", "resume_state")
    )
    begun = Path(f"{output}.unfinished").exists()
    endings = sequences.suffix == ".parquet" or output.suffix in (".zarr", ".parquet")
    return bool(asked or begun or endings or (str(sequences) != "-" and sequences.is_dir()))


@fastgru.command(short_help="Write a layer in another format.")
@model
@click.argument("out", type=PATH)
@layer
@whole
def convert(whole: bool, **given: Any) -> None:
    """Write a layer of MODEL to OUT: .onnx, .npz of fastgru, or .safetensors of PyTorch, by its ending.

    With --whole, write the whole network, to .npz. The new file is read back, and both networks are run on
    random sequences. Only if their outputs agree, OUT is written, in place of a file that is there.

    \b
    Examples:
      fastgru convert model.keras model.onnx
      fastgru convert model.onnx gru.safetensors --layer gru_1
    """
    from fastgru.cli import _convert, _whole

    (_whole if whole else _convert).convert(**given)


@fastgru.command(short_help="Write a layer with int8 weights.")
@model
@click.option("-o", "--output", type=PATH, required=True, metavar="OUT.npz", help="Where to write.")
@layer
@click.option("--calibration", type=PATH, metavar="X.npy", help="Inputs like those that the layer will get.")
@click.option("--lengths", type=PATH, metavar="L.npy", help="How many timesteps each row of X has.")
@whole
def quantize(**given: Any) -> None:
    """Write a layer of MODEL with int8 weights to an .npz of fastgru; with --whole, the whole network.

    With a few hundred timesteps of real inputs, weights are rounded so that outputs change least, and the
    errors on the last fifth of the timesteps are printed. Without inputs, weights are rounded to the nearest
    step.

    \b
    Examples:
      fastgru quantize model.keras --calibration frames.npy -o small.npz
      fastgru quantize model.onnx --layer gru_1 -o small.npz
      fastgru quantize model.onnx --whole -o small.npz
    """
    from fastgru.cli._quantize import quantize

    quantize(**given)


def _sizes(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    """1,8,64 in ascending order, as they are drawn."""
    sizes = value.split(",")
    if not all(size.isdecimal() and int(size) for size in sizes):
        raise click.BadParameter(
            f"must be positive integers with commas between them, such as 1,8,64, got {value!r}."
        )
    return tuple(sorted(set(map(int, sizes))))


def _picture(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    """A file that can be drawn: asked before anything is measured."""
    if value is not None and value.suffix not in PICTURES:
        raise click.BadParameter(f"must end in {', '.join(PICTURES)}, got {str(value)!r}.")
    if value is not None and not value.resolve().parent.is_dir():
        raise click.BadParameter(f"must be in a folder that is there, got {str(value)!r}.")
    return value


@fastgru.command(short_help="Measure layers, next to other runtimes.")
@model
@layer
@click.option(
    "--batch",
    "batches",
    metavar="SIZES",
    callback=_sizes,
    default="1,8,64",
    show_default=True,
    help="How many rows calls have.",
)
@click.option("--seconds", type=click.FloatRange(0), default=0.5, show_default=True, help="For each figure.")
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=_picture,
    help="Draw it, as .png, .svg or .pdf.",
)
@whole
def bench(whole: bool, **given: Any) -> None:
    """Measure how fast the layers of MODEL are on this machine, on one thread.

    onnxruntime and PyTorch run what fastgru exports to them, if they are installed and have such a layer;
    blocks of all runtimes take turns. "roofline" is the least time that the machine's arithmetic and memory
    allow, measured in between, divided by the time taken; "x fastgru" is the time divided by fastgru's.
    With --whole, only fastgru is measured.

    \b
    Examples:
      fastgru bench model.keras
      fastgru bench model.onnx --layer GRU_14 --batch 1,32 --plot speed.png
    """
    from fastgru.cli import _bench, _whole

    (_whole if whole else _bench).bench(**given)


@fastgru.command(short_help="Compare layers with what their own runtime computes.")
@model
@layer
@click.option(
    "--against",
    type=click.Choice(["onnxruntime", "torch", "keras"]),
    help="The other runtime; by default the file's own.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of the random inputs, masks and states.",
)
@whole
def compare(whole: bool, **given: Any) -> int:
    """Compare what the layers of MODEL compute here and in the model's own runtime.

    The runtime (onnxruntime, PyTorch, Keras) reads MODEL by itself, which may run code that is in it: compare
    files that you trust. A runtime of another library, which --against names, gets the layer from fastgru,
    and reading is not tested.

    Each layer is run on random inputs, masks and initial states, and a stateful one also in several calls,
    one after the other. Outputs beyond the end of a row count if the runtime returns zeros there. Layers that
    only one of the two finds, other sizes and another order of axes are differences.

    "error" is the largest distance from the same equations in float64. "of rounding" is the larger of both
    errors, divided by the largest one that rounding may cause in the least precise of the dtypes of layer,
    weights and runtime. A float64 layer is its own measure. The exit status is 0 if nothing is above 1, 1 if
    there is a difference, 2 if a layer could not be compared.

    With --whole, the outputs of the whole network are compared on random inputs.

    \b
    Examples:
      fastgru compare model.keras
      fastgru compare --whole model.keras
      fastgru compare model.onnx --against torch
    """
    from fastgru.cli import _compare, _whole

    status: int = (_whole if whole else _compare).compare(**given)
    return status


@fastgru.command(short_help="Show what computes here.")
def config() -> None:
    """Print what computes here: engine, instruction set, caches, BLAS, versions, the machine.

    \b
    Example:
      fastgru config
    """
    from fastgru import show_config

    show_config()


@fastgru.command(short_help="Print a script for a shell's completion.")
@click.argument("shell", metavar="SHELL", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print a script that completes commands, options and file names in SHELL.

    \b
    Examples:
      eval "$(fastgru completion bash)"                                # in ~/.bashrc
      eval "$(fastgru completion zsh)"                                 # in ~/.zshrc
      fastgru completion fish > ~/.config/fish/completions/fastgru.fish
    """
    found = get_completion_class(shell)
    assert found is not None  # click knows all three
    click.echo(found(fastgru, {}, "fastgru", "_FASTGRU_COMPLETE").source())
