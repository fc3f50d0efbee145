"""What learns: one file a unit (a layer) or a network (an arrangement of units), each written for ONE seed.

A file's existence is its registration. Nothing here imports anything of ours; torch is enough to use it.
"""
