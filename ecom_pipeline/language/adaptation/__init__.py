"""How a language model learns the shop: what it reads, what it is taught, how long, and whether that helped."""
