"""Generated from proto/deltaplane/store/etcdpb by make generate; do not edit."""
