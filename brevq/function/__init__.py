"""Pure tensor functions: integer ranges and straight-through estimators."""
