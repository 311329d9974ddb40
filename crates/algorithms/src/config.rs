//! Which algorithm, and its parameters.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{
    Algorithm, AlgorithmError, Cispo, Dapo, DrGrpo, Grpo, Gspo, Opo, Ppo, ReMax, Reinforce, ReinforcePp, RejectionSft,
    Rloo,
};

/// One line for each algorithm: its variant and type, and its name in configurations.
macro_rules! algorithms {
    ($($variant:ident = $name:literal,)+) => {
        /// An algorithm by name with its parameters; the key `name` chooses, every other key has a default,
        /// unknown keys are refused.
        ///
        /// `"grpo".parse()` gives an algorithm with all defaults.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "name")]
        pub enum AlgorithmConfig {
            $(
                #[doc = concat!("[`", stringify!($variant), "`].")]
                #[serde(rename = $name)]
                $variant($variant),
            )+
        }

        impl AlgorithmConfig {
            /// Every name, in the order of the documentation.
            pub const NAMES: &[&str] = &[$($name),+];

            /// Checks the parameters and makes the algorithm.
            ///
            /// # Errors
            /// Names the parameter that is out of range, its value and its range.
            pub fn build(self) -> Result<Box<dyn Algorithm>, AlgorithmError> {
                let algorithm: Box<dyn Algorithm> = match self {
                    $(AlgorithmConfig::$variant(algorithm) => Box::new(algorithm),)+
                };
                algorithm.validate()?;
                Ok(algorithm)
            }
        }

        $(
            impl From<$variant> for AlgorithmConfig {
                fn from(algorithm: $variant) -> Self {
                    Self::$variant(algorithm)
                }
            }
        )+

        impl FromStr for AlgorithmConfig {
            type Err = AlgorithmError;

            fn from_str(name: &str) -> Result<Self, AlgorithmError> {
                match name {
                    $($name => Ok(AlgorithmConfig::$variant($variant::default())),)+
                    _ => Err(AlgorithmError::Unknown { name: name.to_owned(), known: Self::NAMES.join(", ") }),
                }
            }
        }
    };
}

algorithms! {
    Reinforce = "reinforce",
    ReinforcePp = "reinforce_pp",
    Rloo = "rloo",
    ReMax = "remax",
    Opo = "opo",
    Grpo = "grpo",
    DrGrpo = "dr_grpo",
    Dapo = "dapo",
    Gspo = "gspo",
    Cispo = "cispo",
    Ppo = "ppo",
    RejectionSft = "rejection_sft",
}

impl Default for AlgorithmConfig {
    fn default() -> Self {
        AlgorithmConfig::Grpo(Grpo::default())
    }
}
