"""`python -m workbench`, for where the `workbench` command is not on the path."""

from workbench.cli import main

main()
