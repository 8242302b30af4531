"""Training: datasets, fine-tuning, GGUF export, quantisation and the training node."""
