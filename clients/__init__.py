"""What runs at a data silo: the Flower ClientApp, the silo's own files and its DP-SGD loop."""
