"""Where training ends and validation and test begin, one module per split."""
