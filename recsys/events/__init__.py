"""Events that come in while a model serves: stores that lose none, and their way back to training."""
