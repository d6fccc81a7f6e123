"""The command that writes a pickle of weights anew as safetensors."""
