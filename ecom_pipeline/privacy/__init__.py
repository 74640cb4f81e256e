"""How a person is taken out of a home, how it is proved, and how everybody gets another pseudonym."""
