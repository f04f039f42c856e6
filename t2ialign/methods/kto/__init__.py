"""train kto: likes and dislikes of single images, by Diffusion-KTO or BCO."""
