"""What people read: the HTML report, its summary, and neuron cards."""
