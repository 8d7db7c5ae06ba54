"""Descriptions of layers -> what Keras, PyTorch and ONNX read, and fastgru's own files.

Nothing in here imports a layer class, so that layers may call it. The readers in `fastgru.formats` share its
names, tables and orders of gates.
"""
