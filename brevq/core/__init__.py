"""The parts that quantizers are assembled from: final modules with one job each, handed what they need."""
