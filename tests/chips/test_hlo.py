"""What is read out of a compiled program's text."""

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


def test_the_most_expensive_operations_come_first():
    first, second = Program(TEXT).largest(2, by="cycles")
    assert (first.name, first.kind, first.cycles) == ("work", "fusion", 500)
    assert (second.name, second.cycles) == ("wide", 9)
    assert Program(TEXT).largest(9, by="cycles")[2].source == "jit(step)/convert"


def test_exchanges_are_counted_by_kind():
    (found,) = Program(TEXT).collectives()
    assert found == ("all-reduce", 1, 8 * 128 * 2)


def test_a_program_that_this_machine_compiled():
    """A product of matrices in a loop: at least its operands and result, eight times."""

    def loop(x, y):
        return lax.fori_loop(0, 8, lambda _, x: jnp.tanh(x @ y), x)

    x = jax.ShapeDtypeStruct((64, 64), jnp.float32)
    traffic = Program(jax.jit(loop).lower(x, x).compile().as_text()).traffic()
    once = 3 * 64 * 64 * 4
    assert 8 * once <= traffic < 8 * 4 * once
