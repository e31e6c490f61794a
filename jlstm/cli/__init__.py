"""The command line: parse, wire, print. One file per command, each imported when it is run."""
