"""jlstm against its peers, measured side by side: ``python -m tests.benchmarks --help``.

Not part of the test run. ``contestants`` says how each library is used, ``programs`` what is asked
of it, ``harness`` checks that all compute the same and times them in turn, ``report`` says who won
and who lost.
"""
