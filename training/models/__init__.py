"""Networks that train beside the swap network, and the swap network as a recipe describes it."""
