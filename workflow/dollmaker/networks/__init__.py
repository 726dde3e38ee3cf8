"""What classify, attribute, segment, explain and adapt share: weights, inputs, training."""
