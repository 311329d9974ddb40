//! The figures on a finished simulator: `report.json`, and the same for a reader.

use std::fmt;

use serde::{Deserialize, Serialize};
use zerosearch_eval::wilson_interval;
use zerosearch_search::Quality;
use zerosearch_simulator::{DocumentStatistics, LabelledInteraction, Obedience, Removed};

/// Contents of `report.json`. Everything is measured on held-out questions but the counts of rows, the judge's agreement and the losses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SimulatorReport {
    /// The run's seed.
    pub seed: u64,
    /// The interactions, and what became of them.
    pub rows: RowsReport,
    /// The judge beside the exact rule.
    pub judge: Agreement,
    /// The fine-tuning.
    pub tuning: TuningReport,
    /// Share of the results with a golden answer, by the keyword that was asked for.
    pub obedience: StagesReport<ObedienceReport>,
    /// Perplexity of held-out documents.
    pub perplexity: PerplexityReport,
    /// The documents themselves.
    pub documents: DocumentsReport,
    /// How well the surface of documents tells useful from noisy.
    pub surface_auc: SurfaceReport,
}

/// Numbers of interactions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RowsReport {
    /// Searches of the policy that found something, or rows of the file.
    pub collected: usize,
    /// Twins with documents of the other quality.
    pub twins: usize,
    /// Searches that failed.
    pub failed_searches: usize,
    /// Rows left out as duplicates and leaks.
    pub removed: Removed,
    /// Rows left out because prompt and documents do not fit into the model's context.
    pub too_long: usize,
    /// Rows to learn from, as many of each quality.
    pub train: PartReport,
    /// Rows to measure on.
    pub held_out: PartReport,
}

/// Numbers of one part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartReport {
    /// Different questions.
    pub questions: usize,
    /// Rows in which the answer can be found.
    pub useful: usize,
    /// Rows in which it cannot.
    pub noisy: usize,
}

/// A share with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// From 0 to 1.
    pub share: f64,
    /// The Wilson interval, see [`wilson_interval`].
    pub ci95: [f64; 2],
    /// Of how many.
    pub n: usize,
}

impl Share {
    /// `part` of `n`.
    pub fn of(part: usize, n: usize) -> Self {
        Self { share: part as f64 / n.max(1) as f64, ci95: wilson_interval(part, n), n }
    }
}

/// How often the labels are those of the exact rule, see [`RuleJudge`](zerosearch_simulator::RuleJudge).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// Share of all interactions with the same label.
    pub with_rule: Share,
    /// Interactions that are useful to the judge and noisy to the rule.
    pub useful_against_rule: usize,
    /// Interactions that are noisy to the judge and useful to the rule.
    pub noisy_against_rule: usize,
    /// Interactions that the judge could not decide; they count as noisy.
    pub undecided: usize,
}

/// The fine-tuning and its loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TuningReport {
    /// Optimizer steps.
    pub steps: u64,
    /// Examples in each.
    pub batch: usize,
    /// Parameters of the model.
    pub parameters: usize,
    /// Whether adapters were trained instead of all weights.
    pub lora: bool,
    /// Mean loss of the first tenth of the steps, in nats.
    pub first_loss: f64,
    /// Mean loss of the last tenth.
    pub last_loss: f64,
}

/// A figure for the same queries at three stages.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StagesReport<T> {
    /// The model before fine-tuning, with the prompt of prompt mode.
    pub prompt_mode: T,
    /// The model before fine-tuning, with the prompt that it is tuned with.
    pub before_tuning: T,
    /// The fine-tuned model.
    pub tuned: T,
}

/// Share of the results in which a document mentions a golden answer, at the first attempt.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObedienceReport {
    /// With the keyword `useful`: to be high.
    pub useful: Share,
    /// With the keyword `noisy`: to be low.
    pub noisy: Share,
}

impl From<Obedience> for ObedienceReport {
    fn from(Obedience { useful_contains, noisy_contains, n }: Obedience) -> Self {
        let share = |contains: f64| Share::of((contains * n as f64).round() as usize, n);
        Self { useful: share(useful_contains), noisy: share(noisy_contains) }
    }
}

/// Perplexity of the real documents of held-out questions, given their prompts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PerplexityReport {
    /// Of the model before fine-tuning.
    pub before_tuning: f64,
    /// Of the fine-tuned model.
    pub tuned: f64,
    /// Documents' rows that it was measured on.
    pub n: usize,
}

/// Figures on the documents of held-out queries.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DocumentsReport {
    /// The real engine's. Their `style_distance` is that between the results of one half of the questions and of the other: where a perfect
    /// simulator would be. Their `copy_rate` is what held-out and training documents have in common by nature.
    pub real: DocumentStatistics,
    /// The simulator's, at each stage.
    pub simulated: StagesReport<DocumentStatistics>,
}

/// Areas under the ROC curve of [`surface_auc`](zerosearch_simulator::surface_auc): 0.5 is chance.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SurfaceReport {
    /// Of the real engine's documents; `None` where one quality is missing.
    pub real: Option<f64>,
    /// Of the fine-tuned simulator's.
    pub tuned: Option<f64>,
}

impl PartReport {
    pub(super) fn of(rows: &[LabelledInteraction]) -> Self {
        let questions: std::collections::BTreeSet<&str> =
            rows.iter().map(|row| row.interaction.question.as_str()).collect();
        let useful = rows.iter().filter(|row| row.quality == Quality::Useful).count();
        Self { questions: questions.len(), useful, noisy: rows.len() - useful }
    }
}

fn percent(share: &Share) -> String {
    let [low, high] = share.ci95;
    format!("{:5.1} ({:.1}–{:.1})", 100.0 * share.share, 100.0 * low, 100.0 * high)
}

fn or_dash(figure: Option<f64>) -> String {
    figure.map_or("–".into(), |figure| format!("{figure:.3}"))
}

impl fmt::Display for SimulatorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RowsReport { collected, twins, failed_searches, removed, too_long, train, held_out } = self.rows;
        writeln!(
            f,
            "interactions: {collected} collected, {twins} of the other quality added, {failed_searches} searches failed"
        )?;
        writeln!(
            f,
            "  left out: {} duplicates, {} with the answer in the query, {} with a query and {} with the documents of held-out \
             questions, {too_long} too long; {} documents of held-out questions were taken out",
            removed.duplicates,
            removed.answer_in_query,
            removed.held_out_query,
            removed.held_out_document,
            removed.documents
        )?;
        for (name, part) in [("learnt from", train), ("held out", held_out)] {
            let PartReport { questions, useful, noisy } = part;
            writeln!(f, "  {name}: {useful} useful and {noisy} noisy, of {questions} questions")?;
        }
        let judge = &self.judge;
        writeln!(
            f,
            "judge: agrees with the exact rule on {} % of {}; useful against it {}, noisy against it {}; undecided {}",
            percent(&judge.with_rule).trim_start(),
            judge.with_rule.n,
            judge.useful_against_rule,
            judge.noisy_against_rule,
            judge.undecided
        )?;
        let tuning = &self.tuning;
        let what = if tuning.lora { "adapters" } else { "all weights" };
        writeln!(
            f,
            "fine-tuning: {what} of {:.1}M parameters, {} steps of {}: loss {:.3} → {:.3}",
            tuning.parameters as f64 / 1e6,
            tuning.steps,
            tuning.batch,
            tuning.first_loss,
            tuning.last_loss
        )?;
        let PerplexityReport { before_tuning, tuned, n } = self.perplexity;
        writeln!(f, "perplexity of {n} held-out results: {before_tuning:.2} → {tuned:.2}")?;

        let stages = &self.obedience;
        let n = stages.tuned.useful.n;
        writeln!(f, "\nresults with a golden answer, {n} held-out queries, % (95 % interval)")?;
        writeln!(f, "{:20} {:>20} {:>20}", "", "useful", "noisy")?;
        let rows = [
            ("prompt mode", &stages.prompt_mode),
            ("before fine-tuning", &stages.before_tuning),
            ("fine-tuned", &stages.tuned),
        ];
        for (name, figures) in rows {
            writeln!(f, "{name:20} {:>20} {:>20}", percent(&figures.useful), percent(&figures.noisy))?;
        }

        writeln!(
            f,
            "\n{:20} {:>8} {:>10} {:>10} {:>10} {:>8} {:>8}",
            "documents", "a result", "words each", "distinct-1", "distinct-2", "copied", "style"
        )?;
        let DocumentsReport { real, simulated } = &self.documents;
        let rows = [
            ("real engine", real),
            ("prompt mode", &simulated.prompt_mode),
            ("before fine-tuning", &simulated.before_tuning),
            ("fine-tuned", &simulated.tuned),
        ];
        for (name, s) in rows {
            writeln!(
                f,
                "{name:20} {:8.2} {:10.1} {:10.3} {:10.3} {:>8} {:>8}",
                s.documents_per_result,
                s.words_per_document,
                s.distinct_1,
                s.distinct_2,
                or_dash(s.copy_rate),
                or_dash(s.style_distance)
            )?;
        }
        let SurfaceReport { real, tuned } = self.surface_auc;
        write!(
            f,
            "told apart by their surface alone, AUC (0.5 is chance): real engine {}, fine-tuned {}",
            or_dash(real),
            or_dash(tuned)
        )
    }
}
