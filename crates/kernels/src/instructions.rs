//! Which vector instructions the CPU's kernels use. They change speed, never a bit.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, Ordering};

/// The environment variable that makes the kernels use [lower instructions](InstructionSet) than the processor has.
pub const INSTRUCTIONS_VARIABLE: &str = "ZEROSEARCH_INSTRUCTIONS";

/// Vector instructions that the kernels are written for.
///
/// A process uses the best ones that its processor has, or those that `ZEROSEARCH_INSTRUCTIONS` names: `avx512`, `avx2`,
/// `neon` or `plain`. Every result is the same to the bit with each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum InstructionSet {
    /// Whatever every processor of the target has. Without a fused multiply-add its bits are made with 64-bit floats.
    Plain = 1,
    /// Four floats in each of 32 registers. On x86 the same code with 128-bit instructions, for tests.
    Neon,
    /// AVX2 and FMA: eight floats in each of 16 registers.
    Avx2,
    /// AVX-512 (F, BW, DQ, VL): sixteen floats in each of 32 registers.
    Avx512,
}

/// A set of instructions that is not known, or that this processor lacks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{INSTRUCTIONS_VARIABLE} = {wanted:?}: expected one of {}, which this processor has", names())]
pub struct InstructionsError {
    wanted: String,
}

/// Those that this processor has, as the variable calls them.
fn names() -> String {
    InstructionSet::available().map(InstructionSet::name).collect::<Vec<_>>().join(", ")
}

/// The set in use; 0 until it is first asked for.
static CURRENT: AtomicU8 = AtomicU8::new(0);

impl InstructionSet {
    const ALL: [Self; 4] = [Self::Avx512, Self::Avx2, Self::Neon, Self::Plain];

    /// As the environment variable calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Neon => "neon",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    /// Those that this processor can run, the fastest first.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|set| set.is_available())
    }

    /// Those that the kernels use: the best that the processor has unless the environment names others. A name that
    /// cannot be followed is passed over here; [`from_environment`](Self::from_environment) reports it.
    #[inline]
    pub fn current() -> Self {
        match CURRENT.load(Ordering::Relaxed) {
            0 => Self::first(),
            set => Self::ALL.into_iter().find(|known| *known as u8 == set).unwrap_or(Self::Plain),
        }
    }

    /// Makes all kernels of the process use these instructions from now on.
    ///
    /// # Errors
    /// When the processor lacks them.
    pub fn select(self) -> Result<(), InstructionsError> {
        if !self.is_available() {
            return Err(InstructionsError { wanted: self.name().into() });
        }
        CURRENT.store(self as u8, Ordering::Relaxed);
        Ok(())
    }

    /// The instructions that the environment names, if it names some.
    ///
    /// # Errors
    /// When the name is unknown or the processor lacks them.
    pub fn from_environment() -> Result<Option<Self>, InstructionsError> {
        match std::env::var(INSTRUCTIONS_VARIABLE) {
            Ok(name) if !name.is_empty() => name.parse().map(Some),
            _ => Ok(None),
        }
    }

    #[cold]
    fn first() -> Self {
        let best = Self::available().next().unwrap_or(Self::Plain);
        let set = Self::from_environment().ok().flatten().unwrap_or(best);
        CURRENT.store(set as u8, Ordering::Relaxed);
        set
    }

    fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return match self {
            Self::Plain => true,
            Self::Neon => is_x86_feature_detected!("fma") && is_x86_feature_detected!("sse4.1"),
            Self::Avx2 => is_x86_feature_detected!("fma") && is_x86_feature_detected!("avx2"),
            Self::Avx512 => {
                Self::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
        };
        #[cfg(target_arch = "aarch64")]
        return matches!(self, Self::Plain | Self::Neon);
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        return self == Self::Plain;
    }
}

impl fmt::Display for InstructionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for InstructionSet {
    type Err = InstructionsError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::available().find(|set| set.name() == name).ok_or_else(|| InstructionsError { wanted: name.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_unknown_ones_refused_with_those_that_there_are() {
        for set in InstructionSet::available() {
            assert_eq!(set.to_string().parse(), Ok(set));
        }
        let error = "avx1024".parse::<InstructionSet>().unwrap_err().to_string();
        assert!(error.contains("\"avx1024\"") && error.contains("plain"), "{error}");
        assert!(InstructionSet::available().any(|set| set == InstructionSet::current()));
    }
}
