"""What to order? Units that will be taken of each item and category in the weeks to come, with intervals.

On the floor above `recommend`. A week begins on Monday, UTC; weeks that the data's ends cut off are not looked at.
"""
