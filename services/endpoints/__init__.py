"""What exists and who may talk: nodes, pods, endpoints, identities, policies; see README.md."""
