"""Usage of models: requests counted, priced and summed."""
