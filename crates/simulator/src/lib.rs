//! Control-keyword prompts, judge labelling, SFT, and the simulated `SearchEngine`.
//!
//! ```
//! use zerosearch_search::Quality;
//! use zerosearch_simulator::{Interaction, Judge, RuleJudge};
//!
//! let interaction = Interaction {
//!     question: "What is the capital of Chad?".into(),
//!     golden_answers: vec!["N'Djamena".into()],
//!     query: "capital of Chad".into(),
//!     documents: vec!["The capital of Chad is N'Djamena.".into()],
//! };
//! assert_eq!(RuleJudge.judge(&[interaction])?, [Quality::Useful]);
//! # Ok::<(), zerosearch_simulator::SimulatorError>(())
//! ```

#![forbid(unsafe_code)]

mod cleaning;
mod contrast;
mod each;
mod engine;
mod error;
mod interaction;
mod judge;
mod lessons;
mod obedience;
mod prompt;
mod published;
mod statistics;
mod substitution;
mod surface;
mod thought;
mod tuning;
mod tuning_data;

pub use cleaning::{Removed, Split, split_by_question};
pub use contrast::{contrast, evidence_first};
pub use engine::{SimulatedEngine, SimulationConfig};
pub use error::SimulatorError;
pub use interaction::{Interaction, LabelledInteraction, balance, read_interactions, write_interactions};
pub use judge::{CompleterJudge, Judge, RuleJudge, mentions};
pub use lessons::Lessons;
pub use obedience::{Obedience, measure_obedience, simulate};
pub use prompt::{SimulatorPrompt, documents_text, parse_documents};
pub use statistics::{DocumentStatistics, TrainingText, style_distance};
pub use substitution::Substitution;
pub use surface::surface_auc;
pub use tuning::{Lesson, sft_examples};
pub use tuning_data::{TuningRow, read_tuning_data};
