//! An evaluation with everything that can be set.

use zerosearch_data::{Fingerprint, Question, fingerprint};
use zerosearch_generate::{Generator, Ledger, Role, Usage};
use zerosearch_metrics::ProgressBar;
use zerosearch_rollout::{Noise, RolloutError, RolloutPlan};
use zerosearch_search::{Document, Metered, Query, SearchEngine, SearchError};
use zerosearch_text::{Codec, PromptTemplate};

use crate::attempt::Asked;
use crate::journal::Entry;
use crate::prompts::unfilled;
use crate::recall::Remembering;
use crate::session::Session;
use crate::{EvalConfig, EvalError, Evaluation, GroupedScores, Journal, Prediction, Prompts, Setting};

/// An evaluation: a method by its [`Strategy`](crate::Strategy), a tokenizer, an engine, and what can be set besides.
#[derive(Clone)]
pub struct Evaluator<'a> {
    codec: &'a Codec,
    config: EvalConfig,
    engine: Option<&'a dyn SearchEngine>,
    prompt: Option<PromptTemplate>,
    prompts: Prompts,
    samples: usize,
    ledger: Ledger,
}

/// Predictions, and the time that each took.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluated {
    /// Predictions and scores, which are equal to the last digit when the evaluation is repeated.
    pub evaluation: Evaluation,
    /// Seconds from the start of each prediction's first sequence to its answer, in the order of the predictions. Questions that
    /// are answered at the same time share the machine: the latency of a question alone is that with `chunk` 1.
    pub seconds: Vec<f64>,
}

impl<'a> Evaluator<'a> {
    /// One sample of each question, without an engine, with the built-in prompts.
    pub fn new(codec: &'a Codec, config: EvalConfig) -> Self {
        let prompts = Prompts::default();
        Self { codec, config, engine: None, prompt: None, prompts, samples: 1, ledger: Ledger::new() }
    }

    /// The engine; `None` for a method that does not search.
    #[must_use]
    pub fn engine(mut self, engine: Option<&'a dyn SearchEngine>) -> Self {
        self.engine = engine;
        self
    }

    /// The method's first prompt, in the place of that of its strategy.
    #[must_use]
    pub fn prompt(mut self, prompt: PromptTemplate) -> Self {
        self.prompt = Some(prompt);
        self
    }

    /// The prompts of all methods.
    #[must_use]
    pub fn prompts(mut self, prompts: Prompts) -> Self {
        self.prompts = prompts;
        self
    }

    /// How often each question is answered; more than once needs a temperature above 0.
    #[must_use]
    pub fn samples(mut self, samples: usize) -> Self {
        self.samples = samples;
        self
    }

    /// The ledger that the model, as the policy, and the engine report to.
    #[must_use]
    pub fn ledger(mut self, ledger: Ledger) -> Self {
        self.ledger = ledger;
        self
    }

    /// Everything that predictions depend on but the model and the engine, for a [`Journal`].
    ///
    /// # Errors
    /// When a prompt is broken.
    pub fn setting(&self, questions: &[Question]) -> Result<Setting, EvalError> {
        let mut hash = Fingerprint::default();
        let format = self.config.rollout.format.into();
        hash.text(&unfilled(&self.first_prompt()?)?);
        self.prompts.texts(&format).for_each(|text| hash.text(&text));
        let (strategy, seed, samples) = (self.config.strategy, self.config.seed, self.samples);
        let rollout = self.config.rollout;
        let (questions, prompts) = (fingerprint(questions), hash.to_string());
        Ok(Setting {
            strategy,
            seed,
            samples,
            rollout,
            questions,
            prompts,
            model: String::new(),
            engine: String::new(),
        })
    }

    /// Answers every question as often as there are samples, and scores the answers. Predictions stand in the order of the
    /// questions, those of one question side by side. With a journal, what it has already is not done again, and the rest is
    /// noted in it as it comes.
    ///
    /// # Errors
    /// As [`evaluate`](crate::evaluate); and when several samples are asked for with greedy decoding, or the journal cannot be
    /// written or has other questions.
    pub fn run(
        &self,
        generator: &mut dyn Generator,
        questions: &[Question],
        mut journal: Option<&mut Journal>,
        progress: &ProgressBar,
    ) -> Result<Evaluated, EvalError> {
        let EvalConfig { strategy, rollout, chunk, seed } = self.config;
        if questions.is_empty() {
            return Err(EvalError::NoQuestions);
        }
        for (key, value) in [("chunk", chunk), ("samples", self.samples)] {
            if value == 0 {
                return Err(RolloutError::Zero { key }.into());
            }
        }
        if self.samples > 1 && rollout.sampling.temperature == 0.0 {
            return Err(EvalError::GreedySamples { samples: self.samples });
        }
        let method = strategy.method();
        let engine: &dyn SearchEngine = match self.engine {
            Some(engine) => engine,
            None if method.needs_engine() => return Err(EvalError::NoEngine(strategy)),
            None => &Never,
        };
        let metered = Metered::new(engine, self.ledger.account(Role::Engine));
        let remembering = Remembering::new(&metered);
        let prompt = self.first_prompt()?;
        let plan = RolloutPlan::search(&remembering, Noise::Off, self.codec, rollout);
        let plan = RolloutPlan { seed, ..plan };
        let prompts = &self.prompts;
        let mut session = Session { generator, engine: &remembering, plan, prompt: &prompt, prompts, progress };

        let asked: Vec<Asked<'_>> = (0..)
            .zip(questions)
            .flat_map(|(index, question)| (0..self.samples as u64).map(move |sample| Asked { question, index, sample }))
            .collect();
        let done = journal.as_deref_mut().map(|journal| journal.take(&asked)).transpose()?.unwrap_or_default();
        progress.advance(done.len() as u64);
        let (mut predictions, mut seconds): (Vec<Prediction>, Vec<f64>) =
            done.into_iter().map(|Entry { prediction, seconds }| (prediction, seconds)).unzip();
        let account = self.ledger.account(Role::Policy);
        // The last chunk is as good as any other, however short.
        for chunk in asked[predictions.len()..].chunks(chunk) {
            let attempts = {
                let _working = account.begin();
                method.answer(&mut session, chunk)?
            };
            let mut entries = Vec::new();
            for (asked, attempt) in chunk.iter().zip(attempts) {
                let (calls, tokens_in, tokens_out) = (attempt.calls, attempt.tokens_in, attempt.tokens_out);
                let [calls, tokens_in, tokens_out] = [calls, tokens_in, tokens_out].map(|count| count as u64);
                account.add(Usage { calls, tokens_in, tokens_out, ..Usage::default() });
                let searches = self.engine.is_some() && method.needs_engine();
                let evidence = searches.then(|| remembering.evidence(asked.question, &attempt.queries)).flatten();
                let seconds = attempt.latency.as_secs_f64();
                entries.push(Entry { prediction: Prediction::new(asked, attempt, evidence), seconds });
            }
            remembering.clear();
            if let Some(journal) = journal.as_deref_mut() {
                journal.append(&entries)?;
            }
            for Entry { prediction, seconds: took } in entries {
                predictions.push(prediction);
                seconds.push(took);
            }
        }
        let scores = GroupedScores::of(&predictions);
        Ok(Evaluated { evaluation: Evaluation { predictions, scores }, seconds })
    }

    fn first_prompt(&self) -> Result<PromptTemplate, EvalError> {
        match &self.prompt {
            Some(prompt) => Ok(prompt.clone()),
            None => {
                let format = self.config.rollout.format.into();
                Ok(self.config.strategy.prompt_of(&self.prompts, self.codec, &format)?)
            }
        }
    }
}

/// Stands where no search can happen.
struct Never;

impl SearchEngine for Never {
    fn search(&self, _: &Query<'_>) -> Result<Vec<Document>, SearchError> {
        Err(SearchError::Index("this strategy does not search".into()))
    }
}
