"""Where the numbers of a layer stand in its coefficients, before the biases and the scales."""

ZERO_POINT, LOW, HIGH, RESIDUAL_ZERO_POINT, RESIDUAL_SCALE, REAL_LOW, REAL_HIGH = range(7)
SHIFT = 7  # what rounds and adds the zero point when it is subtracted
HEADER = 16
