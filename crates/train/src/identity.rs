//! The parts of a run beside its configuration: a resumed one must have the same.

use serde::{Deserialize, Serialize};
use zerosearch_data::{Fingerprint, Question, fingerprint};
use zerosearch_lm::{HostWeights, LanguageModel};
use zerosearch_text::{Codec, PromptTemplate};

use crate::{TrainError, Validation};

/// Short names of all parts of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Identity {
    algorithm_name: String,
    questions: String,
    tokenizer: Option<String>,
    base_model: Option<String>,
    /// The prompt of the first question, whole: the template with all that goes into it.
    prompt: Option<String>,
    reward: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    validation: Option<String>,
}

impl Identity {
    pub(crate) fn of(
        policy: &LanguageModel,
        prompt: &PromptTemplate,
        questions: &[Question],
        algorithm: &str,
        reward: &str,
        validation: Option<&Validation>,
    ) -> Result<Self, TrainError> {
        let first = questions.first().map_or("", |question| &question.question);
        Ok(Self {
            algorithm_name: algorithm.into(),
            questions: fingerprint(questions),
            tokenizer: Some(of_tokenizer(&policy.codec)),
            base_model: Some(of_weights(&policy.weights)),
            prompt: Some(prompt.render(first)?),
            reward: Some(reward.into()),
            validation: validation.map(|validation| fingerprint(&validation.questions)),
        })
    }

    /// The first difference between this run and the one that wants to go on with it, with the remedy.
    pub(crate) fn differs_from(&self, now: &Self) -> Option<String> {
        let other = |before: &Option<String>, now: &Option<String>| before.is_some() && before != now;
        let (before, after) = (&self.algorithm_name, &now.algorithm_name);
        let named = |name: &Option<String>| name.clone().unwrap_or_default();
        let differences = [
            (before != after, format!("used the algorithm {before}, not {after}: resume with that one")),
            (self.questions != now.questions, "trained on other questions: resume with the same data".into()),
            (
                other(&self.tokenizer, &now.tokenizer),
                "had another tokenizer: resume with the model folder that it began with".into(),
            ),
            (
                other(&self.base_model, &now.base_model),
                "began from another base model: resume with the model folder that it began with".into(),
            ),
            (other(&self.prompt, &now.prompt), "had another prompt template: resume with the same one".into()),
            (
                other(&self.reward, &now.reward),
                format!(
                    "was paid by the reward {}, not {}: resume with that one",
                    named(&self.reward),
                    named(&now.reward)
                ),
            ),
            (
                other(&self.validation, &now.validation),
                "was validated on other questions: resume with the same data".into(),
            ),
        ];
        differences.into_iter().find(|(differs, _)| *differs).map(|(_, what)| what)
    }
}

fn of_tokenizer(codec: &Codec) -> String {
    let mut name = Fingerprint::default();
    for (file, bytes) in codec.files() {
        name.text(file);
        name.number(bytes.len());
        name.bytes(bytes);
    }
    name.to_string()
}

fn of_weights(weights: &HostWeights) -> String {
    let mut name = Fingerprint::default();
    for (tensor, values) in weights.iter() {
        name.text(tensor);
        values.shape.iter().for_each(|size| name.number(*size));
        name.floats(&values.values);
    }
    name.to_string()
}
