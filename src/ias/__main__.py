"""`python -m ias` is the `ias` command."""

from ias.cli.main import main

main()
