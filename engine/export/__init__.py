"""What quantized models are written as: one package a container."""
