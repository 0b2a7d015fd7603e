"""The floor: arrays and tensors. Imports nothing of ours and no engine, orchestrator or server."""
