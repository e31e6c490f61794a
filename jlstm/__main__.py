"""`python -m jlstm` is the command `jlstm`."""

from jlstm.cli.main import main

main()
