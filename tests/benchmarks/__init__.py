"""jlstm against its peers, measured side by side: ``python -m tests.benchmarks --help``.

Not part of the test run. ``contestants`` says how each library is used, ``programs`` what is asked
of it, ``harness`` checks that all compute the same and times them in turn. ``scaling`` asks what
longer sequences and larger batches cost, ``precision`` what bfloat16 costs and brings,
``modules`` what ours brings in somebody else's model. ``report`` puts everything into words: who
won and who lost.
"""
