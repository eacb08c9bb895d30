"""Small models whose relation neurons are known."""
