"""train backprop: a differentiable reward back through sampling."""
