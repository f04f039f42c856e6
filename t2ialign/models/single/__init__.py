"""Single files of weights, in the layout of the released Stable Diffusion 1, 2 and XL."""
