"""What the language model gives for a text: embeddings, frozen states, features of a pair."""
