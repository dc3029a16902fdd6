"""The Open Inference Protocol, version 2, with Triton's binary tensors.

Source: https://github.com/kserve/open-inference-protocol (specification/protocol/inference_rest.md), and
Triton's extensions binary_tensor_data, statistics and model_repository.
"""
