"""Small models whose relation neurons are known."""

from relation_neurons.planted.model import Planted, planted_model
from relation_neurons.planted.recovery import recovered, recovered_shared

__all__ = ["Planted", "planted_model", "recovered", "recovered_shared"]
