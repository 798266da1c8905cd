"""What `ptychostream doctor` looks at: the stream, the positions, the model, the agent, the files, one module each."""
