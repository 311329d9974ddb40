//! The names that a program needs which trains a policy: `use zerosearch::prelude::*`.

pub use zerosearch_algorithms::{AlgorithmConfig, Dapo, DrGrpo, Grpo, Ppo, Reinforce, Rloo};
pub use zerosearch_curriculum::{Curriculum, CurriculumConfig};
pub use zerosearch_data::{Question, read_questions};
pub use zerosearch_lm::{
    GpuProducts, LanguageModel, LocalCompleter, LocalGenerator, LoraConfig, Refit, StoredDtype, WeightDtype,
    generator_for,
};
pub use zerosearch_metrics::{ConsoleSink, Metrics, Sink};
pub use zerosearch_reward::{ContainsReward, Episode, ExactMatchReward, F1Reward, FormatReward, RewardFn, Weighted};
pub use zerosearch_rollout::RolloutConfig;
pub use zerosearch_search::{Bm25Index, Document, Query, RetrieverServer, SearchEngine, SearchError};
pub use zerosearch_simulator::{SimulatedEngine, SimulationConfig};
pub use zerosearch_text::PromptTemplate;
pub use zerosearch_train::{StepReport, TrainConfig, TrainError, Trainer, TrainerBuilder, Validation};

pub use crate::{Failure, Result};
