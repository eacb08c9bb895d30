"""The two TransformerLens versions behind one interface, and where their neurons are."""
