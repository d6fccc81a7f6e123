"""The losses of meta-training, each a function of one episode's output."""
