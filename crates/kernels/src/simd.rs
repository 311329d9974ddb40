//! Sixteen floats at a time, in the registers of each instruction set.
//!
//! Kernels are written once, over [`Simd`], and compiled for each set; [`with_simd`] runs the one for the set in use. All that
//! they do to a float is a fused multiply-add, so the sets agree to the bit.

use crate::instructions::InstructionSet;

/// Floats of one [`Simd::Wide`].
pub(crate) const LANES: usize = 16;

/// An instruction set.
///
/// # Safety
/// The functions must be called where the set's instructions are enabled: inside [`Work::run`].
pub(crate) trait Simd: Copy {
    /// [`LANES`] floats, in as many registers as they take.
    type Wide: Copy;
    /// One float in every lane of a register.
    type Splat: Copy;
    /// Rows of a tile at most.
    const ROWS: usize;
    /// Panels of a tile with so many rows, from one to eight: the tile's sums must stay in registers, and be enough to hide
    /// the latency of an addition.
    const PANELS: [usize; 8];

    unsafe fn zero() -> Self::Wide;
    unsafe fn load(from: *const f32) -> Self::Wide;
    /// Loads 16-bit brain floats, which are the upper halves of floats.
    unsafe fn load_bf16(from: *const u16) -> Self::Wide;
    unsafe fn store(value: Self::Wide, to: *mut f32);
    unsafe fn splat(from: *const f32) -> Self::Splat;
    /// `a · b + c`, rounded once.
    unsafe fn multiply_add(a: Self::Splat, b: Self::Wide, c: Self::Wide) -> Self::Wide;
    /// Asks for memory that will be read soon, be it there or not.
    fn prefetch(from: *const u8);
}

/// Code that is compiled for every instruction set.
pub(crate) trait Work {
    type Output;

    /// Must be `#[inline(always)]`, as must all that it calls: only what is inlined is compiled with the set's instructions.
    fn run<S: Simd>(self) -> Self::Output;
}

/// Runs work with the instruction set in use.
#[inline]
pub(crate) fn with_simd<W: Work>(work: W) -> W::Output {
    match InstructionSet::current() {
        // SAFETY: a set is in use only where the processor has it.
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx512 => unsafe { x86::avx512(work) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx2 => unsafe { x86::avx2(work) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Neon => unsafe { x86::quads(work) },
        #[cfg(target_arch = "aarch64")]
        InstructionSet::Neon => work.run::<neon::Neon>(),
        _ => work.run::<Plain>(),
    }
}

/// Tiles of 16 registers of eight floats: at most 12 hold sums. And of 32 registers of four: at most 24 do.
const NARROW: [usize; 8] = [4, 3, 2, 1, 1, 1, 1, 1];

/// Arrays, without any instruction of a particular set.
#[derive(Clone, Copy)]
pub(crate) struct Plain;

impl Simd for Plain {
    type Wide = [f32; LANES];
    type Splat = f32;
    const ROWS: usize = 2;
    const PANELS: [usize; 8] = [1; 8];

    #[inline(always)]
    unsafe fn zero() -> Self::Wide {
        [0.0; LANES]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::Wide {
        // SAFETY: the caller has that many floats there.
        unsafe { from.cast::<[f32; LANES]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self::Wide {
        // SAFETY: the caller has that many there.
        let halves = unsafe { from.cast::<[u16; LANES]>().read_unaligned() };
        halves.map(|half| f32::from_bits(u32::from(half) << 16))
    }

    #[inline(always)]
    unsafe fn store(value: Self::Wide, to: *mut f32) {
        // SAFETY: the caller has that much room there.
        unsafe { to.cast::<[f32; LANES]>().write_unaligned(value) }
    }

    #[inline(always)]
    unsafe fn splat(from: *const f32) -> f32 {
        // SAFETY: the caller has a float there.
        unsafe { from.read() }
    }

    #[inline(always)]
    unsafe fn multiply_add(a: f32, b: Self::Wide, c: Self::Wide) -> Self::Wide {
        let mut sums = c;
        for lane in 0..LANES {
            sums[lane] = fused(a, b[lane], c[lane]);
        }
        sums
    }

    #[inline(always)]
    fn prefetch(_: *const u8) {}
}

/// `a · b + c` rounded once, without the instruction: `f32::mul_add` would call a library for every float.
///
/// The product is exact in 64 bits. Their sum is rounded to odd there, which keeps the second rounding, to 32 bits, from
/// seeing a tie that is none (Boldo and Melquiond 2008, "Emulation of a FMA and correctly rounded sums").
#[inline(always)]
fn fused(a: f32, b: f32, c: f32) -> f32 {
    let (product, c) = (f64::from(a) * f64::from(b), f64::from(c));
    let sum = product + c;
    let part = sum - product;
    let error = (product - (sum - part)) + (c - part);
    let bits = sum.to_bits();
    let away = u64::from((error > 0.0) == (sum > 0.0));
    // It does not hold of the NaN that an infinite sum leaves.
    let inexact = u64::from(error.abs() > 0.0) & !bits & 1;
    // One up or one down in magnitude.
    f64::from_bits(bits.wrapping_add(inexact * away).wrapping_sub(inexact * (1 - away))) as f32
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    // Every function keeps the promise of the trait: its callers have enabled the instructions and own the memory.

    use std::arch::x86_64::*;

    use super::{NARROW, Simd, Work};

    #[derive(Clone, Copy)]
    struct Avx512;

    #[derive(Clone, Copy)]
    struct Avx2;

    /// The shape of NEON's tiles.
    #[derive(Clone, Copy)]
    struct Quads;

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    pub(super) fn avx512<W: Work>(work: W) -> W::Output {
        work.run::<Avx512>()
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn avx2<W: Work>(work: W) -> W::Output {
        work.run::<Avx2>()
    }

    #[target_feature(enable = "sse4.1,fma")]
    pub(super) fn quads<W: Work>(work: W) -> W::Output {
        work.run::<Quads>()
    }

    #[inline(always)]
    unsafe fn widen8(from: *const u16) -> __m256 {
        unsafe { _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast())), 16)) }
    }

    #[inline(always)]
    unsafe fn widen4(from: *const u16) -> __m128 {
        unsafe { _mm_castsi128_ps(_mm_slli_epi32(_mm_cvtepu16_epi32(_mm_loadl_epi64(from.cast())), 16)) }
    }

    #[inline(always)]
    fn ask(from: *const u8) {
        // SAFETY: SSE is part of the target, and asking is allowed for any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }

    impl Simd for Avx512 {
        type Wide = __m512;
        type Splat = __m512;
        const ROWS: usize = 8;
        const PANELS: [usize; 8] = [4, 4, 4, 4, 4, 4, 3, 3];

        #[inline(always)]
        unsafe fn zero() -> __m512 {
            unsafe { _mm512_setzero_ps() }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> __m512 {
            unsafe { _mm512_loadu_ps(from) }
        }

        #[inline(always)]
        unsafe fn load_bf16(from: *const u16) -> __m512 {
            unsafe {
                _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast())), 16))
            }
        }

        #[inline(always)]
        unsafe fn store(value: __m512, to: *mut f32) {
            unsafe { _mm512_storeu_ps(to, value) }
        }

        #[inline(always)]
        unsafe fn splat(from: *const f32) -> __m512 {
            unsafe { _mm512_set1_ps(*from) }
        }

        #[inline(always)]
        unsafe fn multiply_add(a: __m512, b: __m512, c: __m512) -> __m512 {
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }

        #[inline(always)]
        fn prefetch(from: *const u8) {
            ask(from);
        }
    }

    impl Simd for Avx2 {
        type Wide = [__m256; 2];
        type Splat = __m256;
        const ROWS: usize = 6;
        const PANELS: [usize; 8] = NARROW;

        #[inline(always)]
        unsafe fn zero() -> Self::Wide {
            unsafe { [_mm256_setzero_ps(); 2] }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self::Wide {
            unsafe { [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))] }
        }

        #[inline(always)]
        unsafe fn load_bf16(from: *const u16) -> Self::Wide {
            unsafe { [widen8(from), widen8(from.add(8))] }
        }

        #[inline(always)]
        unsafe fn store(value: Self::Wide, to: *mut f32) {
            unsafe {
                _mm256_storeu_ps(to, value[0]);
                _mm256_storeu_ps(to.add(8), value[1]);
            }
        }

        #[inline(always)]
        unsafe fn splat(from: *const f32) -> __m256 {
            unsafe { _mm256_broadcast_ss(&*from) }
        }

        #[inline(always)]
        unsafe fn multiply_add(a: __m256, b: Self::Wide, c: Self::Wide) -> Self::Wide {
            unsafe { [_mm256_fmadd_ps(a, b[0], c[0]), _mm256_fmadd_ps(a, b[1], c[1])] }
        }

        #[inline(always)]
        fn prefetch(from: *const u8) {
            ask(from);
        }
    }

    impl Simd for Quads {
        type Wide = [__m128; 4];
        type Splat = __m128;
        const ROWS: usize = 6;
        const PANELS: [usize; 8] = NARROW;

        #[inline(always)]
        unsafe fn zero() -> Self::Wide {
            unsafe { [_mm_setzero_ps(); 4] }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self::Wide {
            unsafe {
                [_mm_loadu_ps(from), _mm_loadu_ps(from.add(4)), _mm_loadu_ps(from.add(8)), _mm_loadu_ps(from.add(12))]
            }
        }

        #[inline(always)]
        unsafe fn load_bf16(from: *const u16) -> Self::Wide {
            unsafe { [widen4(from), widen4(from.add(4)), widen4(from.add(8)), widen4(from.add(12))] }
        }

        #[inline(always)]
        unsafe fn store(value: Self::Wide, to: *mut f32) {
            unsafe {
                _mm_storeu_ps(to, value[0]);
                _mm_storeu_ps(to.add(4), value[1]);
                _mm_storeu_ps(to.add(8), value[2]);
                _mm_storeu_ps(to.add(12), value[3]);
            }
        }

        #[inline(always)]
        unsafe fn splat(from: *const f32) -> __m128 {
            unsafe { _mm_set1_ps(*from) }
        }

        #[inline(always)]
        unsafe fn multiply_add(a: __m128, b: Self::Wide, c: Self::Wide) -> Self::Wide {
            unsafe {
                [
                    _mm_fmadd_ps(a, b[0], c[0]),
                    _mm_fmadd_ps(a, b[1], c[1]),
                    _mm_fmadd_ps(a, b[2], c[2]),
                    _mm_fmadd_ps(a, b[3], c[3]),
                ]
            }
        }

        #[inline(always)]
        fn prefetch(from: *const u8) {
            ask(from);
        }
    }
}

#[cfg(target_arch = "aarch64")]
// The instructions are part of the target, and some of their functions are safe for it.
#[allow(unused_unsafe)]
mod neon {
    // As above.

    use std::arch::aarch64::*;

    use super::{NARROW, Simd};

    #[derive(Clone, Copy)]
    pub(super) struct Neon;

    #[inline(always)]
    unsafe fn widen(from: *const u16) -> float32x4_t {
        unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(from))) }
    }

    impl Simd for Neon {
        type Wide = [float32x4_t; 4];
        type Splat = float32x4_t;
        const ROWS: usize = 6;
        const PANELS: [usize; 8] = NARROW;

        #[inline(always)]
        unsafe fn zero() -> Self::Wide {
            unsafe { [vdupq_n_f32(0.0); 4] }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self::Wide {
            unsafe { [vld1q_f32(from), vld1q_f32(from.add(4)), vld1q_f32(from.add(8)), vld1q_f32(from.add(12))] }
        }

        #[inline(always)]
        unsafe fn load_bf16(from: *const u16) -> Self::Wide {
            unsafe { [widen(from), widen(from.add(4)), widen(from.add(8)), widen(from.add(12))] }
        }

        #[inline(always)]
        unsafe fn store(value: Self::Wide, to: *mut f32) {
            unsafe {
                vst1q_f32(to, value[0]);
                vst1q_f32(to.add(4), value[1]);
                vst1q_f32(to.add(8), value[2]);
                vst1q_f32(to.add(12), value[3]);
            }
        }

        #[inline(always)]
        unsafe fn splat(from: *const f32) -> float32x4_t {
            unsafe { vld1q_dup_f32(from) }
        }

        #[inline(always)]
        unsafe fn multiply_add(a: float32x4_t, b: Self::Wide, c: Self::Wide) -> Self::Wide {
            unsafe {
                [vfmaq_f32(c[0], a, b[0]), vfmaq_f32(c[1], a, b[1]), vfmaq_f32(c[2], a, b[2]), vfmaq_f32(c[3], a, b[3])]
            }
        }

        #[inline(always)]
        fn prefetch(from: *const u8) {
            // SAFETY: asking is allowed for any address, and changes nothing else.
            unsafe {
                std::arch::asm!("prfm pldl2keep, [{}]", in(reg) from, options(nostack, preserves_flags, readonly))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_emulated_multiply_add_is_rounded_once() {
        // Just beside a tie of 32 bits, by less than 64 bits show.
        for k in 15..24 {
            let (above, below) = (1.0 + 2f32.powi(-k), 1.0 - 2f32.powi(-k));
            for c in [1.0, 1.0 + f32::EPSILON, 1.0 + 2.0 * f32::EPSILON, -1.0, -1.0 - f32::EPSILON] {
                for (a, b) in [(above, below), (above, above), (below, below), (-above, below), (-above, above)] {
                    let a = a * 2f32.powi(-24);
                    assert_eq!(fused(a, b, c).to_bits(), a.mul_add(b, c).to_bits(), "{a:e} * {b:e} + {c:e}");
                }
            }
        }
        let mut state = 1u64;
        let mut draw = || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (state >> 32) as u32
        };
        for _ in 0..500_000 {
            let [a, b, c] = [draw(), draw(), draw()].map(f32::from_bits);
            let (found, exact) = (fused(a, b, c), a.mul_add(b, c));
            assert!(found.to_bits() == exact.to_bits() || found.is_nan() && exact.is_nan(), "{a:e} * {b:e} + {c:e}");
            // Of like size, so that the terms meet.
            let [a, b, c] = [a, b, c].map(|x| f32::from_bits(x.to_bits() & 0x81ff_ffff | 0x3e00_0000));
            assert_eq!(fused(a, b, c).to_bits(), a.mul_add(b, c).to_bits(), "{a:e} * {b:e} + {c:e}");
        }
    }
}
