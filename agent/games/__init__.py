"""Games: a case played by somebody from outside, a person or an agent, over a terminal, a shell or MCP."""
