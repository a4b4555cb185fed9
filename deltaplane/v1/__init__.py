"""Generated from proto/deltaplane/v1 by make generate; do not edit."""
