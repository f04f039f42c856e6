"""The toy model: a small real Stable Diffusion of coloured shapes, and how it is built."""
