//! Token sequences by author, and the mask of trained tokens: `Trajectory`, `Segment`, `TokenMask`.
//!
//! ```
//! use zerosearch_trajectory::{Finish, SampledToken, Segment, Trajectory, WeightVersion};
//!
//! let mut trajectory = Trajectory::new(vec![1, 2, 3]);
//! trajectory.push(Segment::Policy {
//!     tokens: vec![SampledToken::new(7, -0.1)],
//!     finish: Finish::Stop,
//!     weights: WeightVersion(0),
//! });
//! trajectory.push(Segment::Observation(vec![8, 9]));
//! assert_eq!(trajectory.tokens(), [1, 2, 3, 7, 8, 9]);
//! assert_eq!(trajectory.mask().trained_positions().collect::<Vec<_>>(), [3]);
//! ```

#![forbid(unsafe_code)]

mod mask;
mod trajectory;

pub use mask::TokenMask;
pub use trajectory::{Finish, SampledToken, Segment, TokenId, Trajectory, WeightVersion};
