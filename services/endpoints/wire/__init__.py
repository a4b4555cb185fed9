"""The registry's messages: what clients send (`requests`), what etcd keeps (`records`)."""
