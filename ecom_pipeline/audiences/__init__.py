"""Whom to ask? Users by how likely they answer an offer, and by what the offer itself adds.

On the floor above `recommend`.
"""
