"""Compile the memory kernel for a GPU that need not be there; prints the loads of its assembly."""

import re

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from service.engine.passes.memory_kernel import ROWS, _attend
from service.engine.passes.memory_table import ALIGNED

NUMBERS = dict.fromkeys(("table_clip", "sites", "heads", "width"), "i32") | {"scale": "fp32"}
STEPS = dict.fromkeys(("by_site", "by_head", "by_clip"), "i32")
MULTIPLES_OF_16 = ("query", "key", "value", "attended", "width", *STEPS)


def main() -> None:
    """Compile as a ViT-B/16 in bfloat16 has it launched."""
    pointers = dict.fromkeys(("query", "key", "value", "attended"), "*bf16") | {"table": "*i64"}
    constants = {"ROWS": ROWS, "COLUMNS": 64, "ALIGNED": ALIGNED}
    types = pointers | NUMBERS | STEPS | dict.fromkeys(constants, "constexpr")
    places = [_attend.arg_names.index(name) for name in MULTIPLES_OF_16]
    source = ASTSource(
        fn=_attend,
        signature={name: types[name] for name in _attend.arg_names},
        constexprs=constants,
        attrs={(place,): [["tt.divisibility", 16]] for place in places},
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32))
    print(*re.findall(r"ld\.global\S*", compiled.asm["ptx"]), sep="\n")  # noqa: T201


if __name__ == "__main__":
    main()
