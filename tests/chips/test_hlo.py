"""Costs and collectives read from a compiled program's text."""

import jax
import jax.numpy as jnp
from jax import lax

from rsa_jax.chips.hlo import Program

TEXT = """HloModule jit_step, entry_computation_layout={(f32[8,128]{1,0:T(8,128)})->f32[8,128]{1,0:T(8,128)}}

%fused (p: f32[8,128]) -> f32[8,128] {
  %p = f32[8,128]{1,0:T(8,128)} parameter(0)
  ROOT %double = f32[8,128]{1,0:T(8,128)} add(%p, %p)
}

%body (state: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %state = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%state), index=0
  %x = f32[8,128]{1,0:T(8,128)} get-tuple-element(%state), index=1
  %work = f32[8,128]{1,0:T(8,128)} fusion(%x), kind=kLoop, calls=%fused, backend_config={"estimated_cycles":"100"}
  ROOT %next = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) tuple(%i, %work)
}

%condition (state: (s32[], f32[8,128])) -> pred[] {
  %state = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  ROOT %more = pred[]{:T(512)} constant(true)
}

ENTRY %main (a: f32[8,128]) -> f32[8,128] {
  %a = f32[8,128]{1,0:T(8,128)} parameter(0)
  %zero = s32[]{:T(128)} constant(0)
  %start = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) tuple(%zero, %a)
  %loop = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) while(%start), condition=%condition, body=%body, \
backend_config={"known_trip_count":{"n":"5"}}
  %y = f32[8,128]{1,0:T(8,128)} get-tuple-element(%loop), index=1
  %half = bf16[8,128]{1,0:T(8,128)(2,1)} convert(%y), metadata={op_name="jit(step)/convert"}, \
backend_config={"estimated_cycles":"7"}
  %begun = bf16[8,128]{1,0:T(8,128)(2,1)} all-reduce-start(%half), to_apply=%fused
  %sum = bf16[8,128]{1,0:T(8,128)(2,1)} all-reduce-done(%begun)
  ROOT %wide = f32[8,128]{1,0:T(8,128)} convert(%sum), backend_config={"estimated_cycles":"9"}
}
"""


def test_cycles_and_traffic_of_a_loop_count_with_its_trips():
    program = Program(TEXT)
    assert program.cycles() == 5 * 100 + 7 + 9
    full, half = 8 * 128 * 4, 8 * 128 * 2
    assert program.traffic() == 5 * 2 * full + (full + half) + 2 * half + (half + full)


def test_trips_that_are_not_noted_are_those_of_the_condition():
    """The TPU compiler writes loops in this form."""
    condition = """  %i = s32[]{:T(128)} get-tuple-element(%state), index=0
  %limit = s32[]{:T(128)} constant(5)
  ROOT %more = pred[]{:T(512)} compare(%i, %limit), direction=LT"""
    text = TEXT.replace("  ROOT %more = pred[]{:T(512)} constant(true)", condition)
    text = text.replace(', backend_config={"known_trip_count":{"n":"5"}}', "")
    assert "known_trip_count" not in text
    assert Program(text).cycles() == Program(TEXT).cycles()


def test_the_most_expensive_operations_come_first():
    first, second = Program(TEXT).largest(2, by="cycles")
    assert (first.name, first.kind, first.cycles) == ("work", "fusion", 500)
    assert (second.name, second.cycles) == ("wide", 9)
    assert Program(TEXT).largest(9, by="cycles")[2].source == "jit(step)/convert"


def test_exchanges_are_counted_by_kind():
    (found,) = Program(TEXT).collectives()
    assert found == ("all-reduce", 1, 8 * 128 * 2)


def test_a_program_that_this_machine_compiled():
    """A matrix product in a loop moves at least its operands and result, eight times."""

    def loop(x, y):
        return lax.fori_loop(0, 8, lambda _, x: jnp.tanh(x @ y), x)

    x = jax.ShapeDtypeStruct((64, 64), jnp.float32)
    traffic = Program(jax.jit(loop).lower(x, x).compile().as_text()).traffic()
    once = 3 * 64 * 64 * 4
    assert 8 * once <= traffic < 8 * 4 * once


def test_a_loop_over_slices_moves_each_once():
    """Reads one row of an array and writes one of another in each of 200 steps."""
    x = jax.ShapeDtypeStruct((200, 1000), jnp.float32)
    program = jax.jit(lambda x: lax.scan(lambda total, row: (total + row, jnp.sin(total)), x[0], x)[1])
    traffic = Program(program.lower(x).compile().as_text()).traffic()
    assert 2 * 800_000 <= traffic < 10 * 800_000


HIDDEN = """HloModule jit_step

%fused (p: f32[8,128]) -> f32[32,128] {
  %p = f32[8,128]{1,0} parameter(0)
  %begun = (f32[8,128]{1,0}, f32[32,128]{1,0}) all-gather-start(%p), dimensions={0}
  ROOT %all = f32[32,128]{1,0} all-gather-done(%begun)
}

%small (p: f32[8,128]) -> f32[32,128] {
  %p = f32[8,128]{1,0} parameter(0)
  ROOT %wide = f32[32,128]{1,0} pad(%p), padding=0_24x0_0
}

%large (p: f32[8,128]) -> f32[32,128] {
  %p = f32[8,128]{1,0} parameter(0)
  ROOT %sum = f32[32,128]{1,0} all-to-all(%p), dimensions={0}
}

ENTRY %main (a: f32[8,128], which: s32[]) -> f32[32,128] {
  %a = f32[8,128]{1,0} parameter(0)
  %which = s32[] parameter(1)
  %x = f32[32,128]{1,0} fusion(%a), kind=kCustom, calls=%fused
  ROOT %y = f32[32,128]{1,0} conditional(%which, %a, %a), branch_computations={%small, %large}
}
"""


def test_exchanges_in_fusions_and_branches_are_found():
    """An all-gather-start returns its operand beside its result."""
    whole = 32 * 128 * 4
    assert Program(HIDDEN).collectives() == [("all-gather", 1, whole), ("all-to-all", 1, whole)]


def test_a_kernel_says_its_own_cycles():
    """The kernel's compiler breaks lines in the metadata, and repeats it where the result tuple is unpacked."""
    said = 'frontend_attributes={kernel_metadata={\n"estimated_cycles":"300"\n}}'
    program = Program(
        "%add (p: f32[], q: f32[]) -> f32[] {\n  ROOT %r = f32[] add(%p, %q)\n}\n\n"
        "ENTRY %main (a: f32[8,128]) -> f32[8,128] {\n"
        "  %a = f32[8,128]{1,0} parameter(0)\n"
        f'  %rsa = (f32[8,128]{{1,0}}, f32[8]{{0}}) custom-call(%a), custom_call_target="tpu_custom_call", {said}\n'
        f"  ROOT %y = f32[8,128]{{1,0}} get-tuple-element(%rsa), index=0, {said}\n"
        "}"
    )
    assert program.cycles() == 300
