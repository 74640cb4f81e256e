"""Which acts are not their user's own? What speaks against each, and errors planted to know whether that is found."""
