"""A language model of 30,000 random weights as a GGUF file: it says nonsense, but says it as a real one would.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, version 3.
"""

import math
import random
import struct
from pathlib import Path

WIDTH, HEADS, HIDDEN, CONTEXT = 32, 2, 64, 512
_UINT32, _INT32, _FLOAT32, _STRING, _ARRAY = 4, 5, 6, 8, 9
_ALIGNMENT = 32
_CONTROL, _NORMAL, _BYTE, _UNKNOWN = 3, 1, 6, 2


def write_tiny_model(path: Path) -> None:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581"]
    tokens += [chr(letter) for letter in range(ord("a"), ord("z") + 1)]
    kinds = [_UNKNOWN, _CONTROL, _CONTROL, *[_BYTE] * 256, *[_NORMAL] * 27]
    scores = [0.0] * 3 + [-100.0] * 256 + [-1.0] * 27
    fields = [
        _field("general.architecture", _STRING, "llama"),
        _field("llama.context_length", _UINT32, CONTEXT),
        _field("llama.embedding_length", _UINT32, WIDTH),
        _field("llama.block_count", _UINT32, 1),
        _field("llama.feed_forward_length", _UINT32, HIDDEN),
        _field("llama.attention.head_count", _UINT32, HEADS),
        _field("llama.attention.layer_norm_rms_epsilon", _FLOAT32, 1e-5),
        _field("llama.rope.dimension_count", _UINT32, WIDTH // HEADS),
        _field("tokenizer.ggml.model", _STRING, "llama"),
        _list("tokenizer.ggml.tokens", _STRING, tokens),
        _list("tokenizer.ggml.scores", _FLOAT32, scores),
        _list("tokenizer.ggml.token_type", _INT32, kinds),
        _field("tokenizer.ggml.bos_token_id", _UINT32, 1),
        _field("tokenizer.ggml.eos_token_id", _UINT32, 2),
        _field(
            "tokenizer.chat_template",
            _STRING,
            "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:",
        ),
    ]
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (WIDTH, len(tokens)),
        "output_norm.weight": (WIDTH,),
        "output.weight": (WIDTH, len(tokens)),
        "blk.0.attn_norm.weight": (WIDTH,),
        "blk.0.ffn_norm.weight": (WIDTH,),
        **{f"blk.0.attn_{name}.weight": (WIDTH, WIDTH) for name in ("q", "k", "v", "output")},
        "blk.0.ffn_gate.weight": (WIDTH, HIDDEN),
        "blk.0.ffn_up.weight": (WIDTH, HIDDEN),
        "blk.0.ffn_down.weight": (HIDDEN, WIDTH),
    }
    draw = random.Random(0)  # noqa: S311  # weights, not secrets
    infos, data = b"", b""
    for name, shape in shapes.items():
        infos += _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, len(data))
        count = math.prod(shape)
        weights = [1.0] * count if "norm" in name else [draw.gauss(0, 0.5) for _ in range(count)]
        data += _padded(struct.pack(f"<{count}f", *weights))
    head = b"GGUF" + struct.pack("<IQQ", 3, len(shapes), len(fields)) + b"".join(fields) + infos
    path.write_bytes(_padded(head) + data)


def _field(key: str, kind: int, value: object) -> bytes:
    return _text(key) + struct.pack("<I", kind) + _value(kind, value)


def _list(key: str, kind: int, values: list) -> bytes:
    return _text(key) + struct.pack("<IIQ", _ARRAY, kind, len(values)) + b"".join(_value(kind, v) for v in values)


def _value(kind: int, value) -> bytes:
    return _text(value) if kind == _STRING else struct.pack({_UINT32: "<I", _INT32: "<i", _FLOAT32: "<f"}[kind], value)


def _text(value: str) -> bytes:
    encoded = value.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % _ALIGNMENT)
