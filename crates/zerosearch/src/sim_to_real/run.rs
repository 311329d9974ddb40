//! The measurement: episodes with both engines, then the same queries to both.

use std::path::Path;

use zerosearch_data::Question;
use zerosearch_eval::Estimate;
use zerosearch_files::prepare_folder;
use zerosearch_generate::{Generator, Stream};
use zerosearch_grammar::EpisodeFormat;
use zerosearch_metrics::ProgressBar;
use zerosearch_reward::RewardFn;
use zerosearch_rollout::{Rollout, RolloutConfig, ToolRecord};
use zerosearch_search::SearchEngine;
use zerosearch_simulator::{mentions, simulate};
use zerosearch_text::{Codec, PromptTemplate};
use zerosearch_train::Experience;

use super::documents::compared;
use super::page::write_page;
use super::report::{EpisodeFigures, GapReport, NoiseLevel};
use crate::pipeline::PipelineError;
use crate::pipeline::collect::{Episodes, failures, interactions};
use crate::pipeline::folder::Folder;

/// A policy, the simulator that it was or will be trained against, and the real engine.
pub struct SimToReal<'a> {
    /// The policy, in this process or on a server.
    pub policy: &'a mut dyn Generator,
    /// Its tokenizer.
    pub codec: &'a Codec,
    /// Its prompt.
    pub prompt: &'a PromptTemplate,
    /// The simulator.
    pub simulator: &'a dyn SearchEngine,
    /// The engine that it plays.
    pub real: &'a dyn SearchEngine,
    /// Questions that neither of the models learnt from.
    pub questions: &'a [Question],
    /// The score of an episode.
    pub reward: &'a dyn RewardFn,
    /// The bounds of an episode.
    pub rollout: RolloutConfig,
    /// Shares of noisy documents, each from 0 to 1.
    pub noise: &'a [f64],
    /// The seed of all sampling.
    pub seed: u64,
}

/// The figures of one question's episode.
struct Played {
    reward: f64,
    /// Searches with a golden answer in a document, and all that succeeded.
    hits: usize,
    found: usize,
    searches: usize,
    failures: usize,
}

impl SimToReal<'_> {
    /// Measures, and leaves `gap.json` and `report.html` in the folder `out`.
    ///
    /// # Errors
    /// When there is no question, a noise level is no share, an engine fails on everything, or a file cannot be written.
    pub fn run(self, out: &Path) -> Result<GapReport, PipelineError> {
        let refused = |key, value: String, expected| Err(PipelineError::Config { key, value, expected });
        if self.questions.is_empty() {
            return refused("questions", "empty".into(), "at least one question");
        }
        if let Some(level) = self.noise.iter().find(|level| !(0.0..=1.0).contains(*level)) {
            return refused("noise", level.to_string(), "0 to 1");
        }
        prepare_folder(out)?;
        let Self { policy, codec, prompt, simulator, real, questions, reward, rollout, noise, seed } = self;
        let format = EpisodeFormat::from(rollout.format);
        let tasks: Vec<(u64, &Question)> = (0..).zip(questions).collect();
        // The same draws for every engine and level, so that differences are paired.
        let stream = Stream { seed, purpose: "sim to real", ..Stream::default() }.value();
        let mut played = |label: &str, engine: &dyn SearchEngine, noise: f64| {
            let bar = ProgressBar::new(label, tasks.len() as u64);
            let episodes = Episodes { codec, prompt, engine, rollout, seed: stream, noise };
            let rollouts = episodes.run(policy, &tasks, &bar)?;
            bar.finish();
            failures(&rollouts)?;
            let figures = |rollout: &Rollout| Played::of(rollout, reward, &format);
            Ok::<_, PipelineError>((rollouts.iter().map(figures).collect::<Vec<_>>(), rollouts))
        };
        let (with_real, rollouts) = played("real engine", real, 0.0)?;
        let mut levels = Vec::new();
        for &share in noise {
            let (with_simulator, _) = played(&format!("simulator, {:.0} % noisy", 100.0 * share), simulator, share)?;
            let differences: Vec<f64> =
                with_simulator.iter().zip(&with_real).map(|(ours, real)| ours.reward - real.reward).collect();
            let reward_gap = Estimate::of(&differences);
            levels.push(NoiseLevel { noise: share, episodes: EpisodeFigures::of(&with_simulator), reward_gap });
        }
        let asked: Vec<_> = rollouts.iter().flat_map(interactions).collect();
        let written = simulate(simulator, &asked, rollout.top_k, seed)?;
        let documents = compared(&asked, written);
        let (questions, queries) = (questions.len(), asked.len());
        let real = EpisodeFigures::of(&with_real);
        let report = GapReport::new(seed, reward.name(), questions, queries, real, levels, documents);
        Folder(out).write("gap.json", &report)?;
        write_page(&out.join("report.html"), &report)?;
        Ok(report)
    }
}

impl Played {
    fn of(rollout: &Rollout, reward: &dyn RewardFn, format: &EpisodeFormat) -> Self {
        let found: Vec<_> = rollout.calls().filter(|call| call.failure.is_none()).collect();
        let is_hit = |call: &&&ToolRecord| call.documents.iter().any(|text| mentions(text, &rollout.golden_answers));
        Self {
            hits: found.iter().filter(is_hit).count(),
            found: found.len(),
            searches: rollout.searches(),
            failures: rollout.search_failures(),
            reward: f64::from(Experience::new(rollout.clone(), reward, format).reward),
        }
    }
}

impl EpisodeFigures {
    fn of(played: &[Played]) -> Self {
        let column = |figure: &dyn Fn(&Played) -> f64| Estimate::of(&played.iter().map(figure).collect::<Vec<_>>());
        // Of all searches, not of each question's: a question without a search has no share.
        let share = |of: &[usize]| {
            let sum = |figure: &dyn Fn(&Played) -> usize| of.iter().map(|index| figure(&played[*index])).sum::<usize>();
            sum(&|one| one.hits) as f64 / sum(&|one| one.found).max(1) as f64
        };
        Self {
            reward: column(&|one| one.reward),
            searches: column(&|one| one.searches as f64),
            searched: column(&|one| f64::from(u8::from(one.searches > 0))),
            contains: Estimate::jackknife(played.len(), share).of_share(),
            search_failures: played.iter().map(|one| one.failures).sum(),
        }
    }
}
