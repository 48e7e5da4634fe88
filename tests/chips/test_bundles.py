"""Instruction bundles of a kernel, counted as often as their loops run."""

import pytest

from rsa_jax.chips.bundles import bundles_of, kernel_cycles

# A loop over a grid of 5 contains one of 3 trips around one of 4; the exit tests are predicated and evaluated early.
TEXT = """
LB: loop body
     0   :  { %s1 = smov 0 }
   0x1 LB: > { %s2 = smov 0 }
   0x2 LB: >> { %s3 = smov 0 }
   0x3 LB: >>> { %p6 = scmp.ge.s32.totalorder %s5_s1, 4 /* loop exit test */ }
   0x4   : >>> { %p7 = scmp.ge.s32.totalorder (%p6), %s4_s2, 3 /* loop exit test */ }
   0x5   : >>> { %8 = sbr.rel (!%p6) target = $region2 }
   0x6   : > { %9 = sbr.rel (!%p7) target = $region1 }
   0x7 PF: > { %p9 = scmp.ge.s32.totalorder %s6_s1, 7 /* loop exit test */ }
   0x8   : > { %10 = sbr.rel (!%p9) target = $region0 }
   0x9   :  { %11 = vsyncpa 1 }
"""


def test_bundles_times_trips():
    assert kernel_cycles(TEXT) == 1 + 5 * (1 + 3 * (1 + 4 * 3 + 1) + 2) + 1


def test_a_loop_without_a_written_number_of_trips():
    with pytest.raises(ValueError, match="trips"):
        kernel_cycles(TEXT.replace("%p9 = scmp.ge", "%p9 = scmp.gt"))


def test_the_last_kernel_of_that_name(tmp_path):
    for name, text in {
        "10-rsa_forward.1-70-schedule-analysis_final_bundles.txt": "not these",
        "10-rsa_forward.1-71-final_bundles.txt": "first",
        "20-rsa_forward.2-71-final_bundles.txt": "second",
        "30-fusion.1-71-final_bundles.txt": "another",
    }.items():
        (tmp_path / name).write_text(text)
    assert bundles_of(tmp_path, "rsa_forward") == "second"
    with pytest.raises(FileNotFoundError, match="rsa_backward"):
        bundles_of(tmp_path, "rsa_backward")
