"""Neural networks (one file each, nn.Module only) and the registry of weights with their cards."""
