"""The names of a memory's two files and of what is in them. No torch here."""

from __future__ import annotations

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
PEFT_TYPE = "WISED_ROUTED_MEMORY"
ROUTER_VERSION = 1
#: what the router's part of the configuration says besides its figures, one a kind
KEYED = {
    "version": ROUTER_VERSION,
    "kind": "keyed",
    "key": "last prompt token",
    "unit": "position",
}
ACTIVATION = {"version": ROUTER_VERSION, "kind": "activation", "unit": "prompt"}
MAX_HEADER_BYTES = 1 << 20  #: of the safetensors file; some 10,000 tensors
METADATA = {"format": "pt"}
#: types that shards are stored in, by safetensors' names; the first is said where there are none
SHARD_DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
