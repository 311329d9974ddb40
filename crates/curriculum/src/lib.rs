//! Training progress in, probability of noisy documents out.
//!
//! ```
//! use zerosearch_curriculum::{Curriculum, Exponential, Progress};
//!
//! // Noise rises from 0 to 0.5, slowly at first: p = 0.5 · (4^(i/m) − 1) / 3.
//! let curriculum = Exponential::new(0.0, 0.5, 4.0)?;
//! assert_eq!(curriculum.noise_probability(Progress::at(0, 200)), 0.0);
//! assert!((curriculum.noise_probability(Progress::at(100, 200)) - 0.5 / 3.0).abs() < 1e-12);
//! assert_eq!(curriculum.noise_probability(Progress::at(200, 200)), 0.5);
//! # Ok::<(), zerosearch_curriculum::CurriculumError>(())
//! ```
//!
//! A curriculum is a pure function of [`Progress`]: it draws nothing and remembers nothing, so a
//! resumed run continues where it stopped. What has to be remembered, the policy's running
//! [`SuccessRate`], is the caller's and goes into its checkpoint.

#![forbid(unsafe_code)]

mod adaptive;
mod compose;
mod config;
mod error;
mod progress;
mod shapes;

pub use adaptive::{Adaptive, SuccessRate};
pub use compose::{PerTurn, Reversed};
pub use config::CurriculumConfig;
pub use error::CurriculumError;
pub use progress::Progress;
pub use shapes::{Constant, Exponential, Linear, Step};

/// How noisy the simulated search engine is at a point of training.
pub trait Curriculum: Send + Sync {
    /// The probability, in `[0, 1]`, that one search call returns **noisy** documents.
    ///
    /// Pure: the same progress always gives the same probability. The draw itself is the caller's,
    /// once per search call.
    fn noise_probability(&self, progress: Progress) -> f64;
}

impl<C: Curriculum + ?Sized> Curriculum for Box<C> {
    fn noise_probability(&self, progress: Progress) -> f64 {
        (**self).noise_probability(progress)
    }
}
