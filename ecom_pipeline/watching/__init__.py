"""Whether today is like other days: what is watched, how far it is from usual, and what a person is told of it.

On the floor of `experiments`. A verdict rests on how much ordinary days differ from each other, never on how many rows a
day has, so that a large shop is not alarmed by what a small one would not see.
"""
