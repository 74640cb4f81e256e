"""Does it sell more? Who gets which arm, what the arms sold, which list wins, and what another policy would have earned.

On the floor above `recommend`. Units are keyed hashes of people, as everywhere.
"""
