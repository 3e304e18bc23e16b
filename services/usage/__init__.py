"""What requests to models use: counted, priced, summed up."""
