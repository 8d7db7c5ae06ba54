"""`fastgru config`: what computes here."""

import click

import fastgru


@click.command(short_help="Show what computes here.")
def config() -> None:
    """What computes here: engine, instruction set, caches, BLAS, versions, the machine.

    \b
    Example:
      fastgru config
    """
    fastgru.show_config()
