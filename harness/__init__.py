"""The loop, in eight lines:

A researcher reads program.md, the incumbent train.py and the ledger, and makes a Proposal: a new train.py.
The driver commits it, without touching your branch, and writes its row before any work starts.
A runner trains it in a process of its own: the feeder hands out batches and holds the clock.
A scorer that never imports the code under test measures bits per byte on fixed rows of val.
The judge, a pure function of trials, says keep, discard, or train one more seed.
The ledger records the verdict; git moves the branch, or leaves the attempt under its own ref.
Meanwhile the next proposals are made, so that no device waits; one driver alone writes ledger and git.
Stop it at any moment: started again, it goes on where it was.
"""
