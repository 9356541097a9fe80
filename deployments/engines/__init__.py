"""What computes a model: ``engine`` is the contract, ``transformers`` and ``vllm`` are the engines. Knows no Ray.

``sources`` and ``fetching`` get the weights, ``settings`` says what a replica is told, ``loading`` starts an engine.
"""
