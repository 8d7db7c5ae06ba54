"""`fastgru completion`: what a shell needs to complete the command's arguments."""

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command(short_help="Print a script for a shell's completion.")
@click.argument("shell", metavar="SHELL", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script that completes commands, options and file names in SHELL.

    \b
    Examples:
      eval "$(fastgru completion bash)"                                # in ~/.bashrc
      eval "$(fastgru completion zsh)"                                 # in ~/.zshrc
      fastgru completion fish > ~/.config/fish/completions/fastgru.fish
    """
    found = get_completion_class(shell)
    assert found is not None  # click knows all three
    root = context.find_root()
    click.echo(found(root.command, {}, "fastgru", "_FASTGRU_COMPLETE").source())
