"""Layers, as they describe themselves -> what Keras, PyTorch and ONNX read, and fastgru's own files.

Nothing in here knows a layer's class, so that layers may call it. The readers in `fastgru.formats` share its
names, tables and orders of gates.
"""
