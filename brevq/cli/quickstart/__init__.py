"""The quickstart: one small network, quantized to fewer and fewer bits, with the accuracy and bytes of each."""
