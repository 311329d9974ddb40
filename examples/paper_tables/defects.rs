//! Mistakes of released implementations, each made through a seam that any program has: an engine or an algorithm of one's own.
//!
//! Containment as reward is no code: `reward = "contains"`.

use zerosearch::algorithms::{Advantages, Algorithm, AlgorithmError, LossInputs, LossTerms, RewardBatch, TokenLoss};
use zerosearch::data::Question;
use zerosearch::generate::Stream;
use zerosearch::paper_tables::{Defect, Training};
use zerosearch::search::{Document, Query, SearchEngine, SearchError, SimulationContext};
use zerosearch::train::{Experience, TrainError, TrainerBuilder};
use zerosearch::trajectory::{Finish, SampledToken, Segment, Trajectory, WeightVersion};

/// Every defect.
pub(crate) fn all() -> Vec<Box<dyn Defect>> {
    vec![Box::new(DocumentTokens), Box::new(OtherContext), Box::new(KlSubtracted), Box::new(GroupsOfOne)]
}

/// Documents are learnt as if the policy had written them: the loss has no mask.
///
/// Their tokens' log-probabilities before the update are the trainer's own, as everywhere in that run.
struct DocumentTokens;

impl Defect for DocumentTokens {
    fn name(&self) -> &'static str {
        "document_tokens"
    }

    fn trainer(&self, builder: TrainerBuilder, _: &Training) -> Result<TrainerBuilder, TrainError> {
        let claim = |experience: &mut Experience| {
            let trajectory = &mut experience.rollout.trajectory;
            *trajectory = claimed(trajectory);
        };
        Ok(builder.before_update(move |experiences| experiences.iter_mut().for_each(claim)))
    }
}

/// The same tokens, of which all behind the prompt are the policy's.
fn claimed(trajectory: &Trajectory) -> Trajectory {
    let mut all = Trajectory::new(Vec::new());
    let mut version = WeightVersion::default();
    for segment in trajectory.segments() {
        all.push(match segment {
            Segment::Observation(ids) => {
                let tokens = ids.iter().map(|id| SampledToken::new(*id, 0.0)).collect();
                Segment::Policy { tokens, finish: Finish::Stop, weights: version }
            }
            other => {
                if let Segment::Policy { weights, .. } = other {
                    version = *weights;
                }
                other.clone()
            }
        });
    }
    all
}

/// The simulator is told the question and the answer of another row: the list of queries was compacted, that of rows was not.
///
/// There it befell the rows behind one that had finished, here every search, so that no result depends on which searches come together.
struct OtherContext;

impl Defect for OtherContext {
    fn name(&self) -> &'static str {
        "other_context"
    }

    fn engine(&self, engine: Box<dyn SearchEngine>, questions: &[Question]) -> Box<dyn SearchEngine> {
        Box::new(Mixed { engine, questions: questions.to_vec() })
    }
}

struct Mixed {
    engine: Box<dyn SearchEngine>,
    questions: Vec<Question>,
}

impl Mixed {
    /// The context of a question that the search's own stream draws.
    fn mixed<'q>(&'q self, query: &Query<'q>) -> Query<'q> {
        let context = query.context.map(|context| {
            let draw = Stream { seed: context.seed, purpose: "another row", ..Stream::default() }.value();
            let other = &self.questions[(draw % self.questions.len().max(1) as u64) as usize];
            SimulationContext { question: &other.question, answers: &other.golden_answers, ..context }
        });
        Query { context, ..*query }
    }
}

impl SearchEngine for Mixed {
    fn search(&self, query: &Query<'_>) -> Result<Vec<Document>, SearchError> {
        self.engine.search(&self.mixed(query))
    }

    fn search_batch(&self, queries: &[Query<'_>]) -> Vec<Result<Vec<Document>, SearchError>> {
        let mixed: Vec<Query<'_>> = queries.iter().map(|query| self.mixed(query)).collect();
        self.engine.search_batch(&mixed)
    }

    fn concurrency(&self) -> usize {
        self.engine.concurrency()
    }

    fn counters(&self) -> Vec<(String, f64)> {
        self.engine.counters()
    }
}

/// The KL term is subtracted from the loss, which pays the policy for leaving the reference.
struct KlSubtracted;

impl Defect for KlSubtracted {
    fn name(&self) -> &'static str {
        "kl_subtracted"
    }

    fn trainer(&self, builder: TrainerBuilder, training: &Training) -> Result<TrainerBuilder, TrainError> {
        Ok(builder.algorithm(Subtracted(training.train.algorithm.clone().build()?)))
    }
}

#[derive(Debug)]
struct Subtracted(Box<dyn Algorithm>);

impl Algorithm for Subtracted {
    fn name(&self) -> &'static str {
        "kl_subtracted"
    }

    fn advantages(&mut self, batch: &RewardBatch<'_>) -> Result<Advantages, AlgorithmError> {
        self.0.advantages(batch)
    }

    fn token_loss(&self, inputs: &LossInputs) -> TokenLoss {
        self.0.token_loss(inputs)
    }

    fn terms(&self) -> LossTerms {
        let mut terms = self.0.terms();
        terms.kl.coefficient = -terms.kl.coefficient;
        terms
    }

    fn min_group_size(&self) -> usize {
        self.0.min_group_size()
    }

    /// A negative coefficient is what it is for.
    fn validate(&self) -> Result<(), AlgorithmError> {
        self.0.validate()
    }
}

/// Every row is a group of its own: there is nothing to compare a reward with, and it becomes the advantage as it is, as in verl's GRPO.
struct GroupsOfOne;

impl Defect for GroupsOfOne {
    fn name(&self) -> &'static str {
        "groups_of_one"
    }

    fn trainer(&self, builder: TrainerBuilder, training: &Training) -> Result<TrainerBuilder, TrainError> {
        Ok(builder.algorithm(Alone(training.train.algorithm.clone().build()?)))
    }
}

#[derive(Debug)]
struct Alone(Box<dyn Algorithm>);

impl Algorithm for Alone {
    fn name(&self) -> &'static str {
        "groups_of_one"
    }

    fn advantages(&mut self, batch: &RewardBatch<'_>) -> Result<Advantages, AlgorithmError> {
        Ok(Advantages::from_sequences(batch, &batch.scores()))
    }

    fn token_loss(&self, inputs: &LossInputs) -> TokenLoss {
        self.0.token_loss(inputs)
    }

    fn terms(&self) -> LossTerms {
        self.0.terms()
    }

    fn validate(&self) -> Result<(), AlgorithmError> {
        self.0.validate()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use zerosearch::algorithms::Grpo;
    use zerosearch::paper_tables::{Experiment, TABLES};
    use zerosearch::pipeline::PipelineConfig;
    use zerosearch::search::Quality;

    use super::*;

    #[test]
    fn every_defect_of_the_tables_is_there() {
        let named = TABLES
            .iter()
            .flat_map(|table| table.experiments())
            .filter_map(|name| Experiment::named(name, &PipelineConfig::default()).unwrap().training?.defect);
        let there: BTreeSet<String> = all().iter().map(|defect| defect.name().to_owned()).collect();
        assert_eq!(named.collect::<BTreeSet<_>>(), there);
    }

    /// Says which question it was told.
    struct Told;

    impl SearchEngine for Told {
        fn search(&self, query: &Query<'_>) -> Result<Vec<Document>, SearchError> {
            let context = query.context.ok_or(SearchError::NoContext)?;
            let contents = format!("{} {} {:?}", context.question, context.answers[0], context.quality);
            Ok(vec![Document { contents, ..Document::default() }])
        }
    }

    #[test]
    fn the_simulator_is_told_another_row_whatever_comes_together() {
        let questions: Vec<Question> =
            (0..50).map(|i| Question::new(i.to_string(), format!("q{i}"), vec![format!("a{i}")])).collect();
        let engine = OtherContext.engine(Box::new(Told), &questions);
        let answers = ["own answer".to_owned()];
        let query = |seed| Query {
            text: "x",
            top_k: 1,
            context: Some(SimulationContext { question: "own", answers: &answers, quality: Quality::Noisy, seed }),
        };
        let queries: Vec<Query<'_>> = (0..20).map(query).collect();
        let told = |found: Result<Vec<Document>, SearchError>| found.unwrap()[0].contents.clone();
        let together: Vec<String> = engine.search_batch(&queries).into_iter().map(told).collect();
        let alone: Vec<String> = queries.iter().map(|query| told(engine.search(query))).collect();
        assert_eq!(together, alone);
        assert!(together.iter().all(|text| text.starts_with('q') && text.ends_with("Noisy")), "{together:?}");
        assert!(together.iter().collect::<BTreeSet<_>>().len() > 10, "{together:?}");
    }

    #[test]
    fn documents_are_claimed_and_the_prompt_is_not() {
        let sampled = SampledToken::new(5, -0.5);
        let turn = || Segment::Policy { tokens: vec![sampled], finish: Finish::Stop, weights: WeightVersion(2) };
        let mut trajectory = Trajectory::new(vec![1, 2]);
        [turn(), Segment::Observation(vec![7, 8]), turn()].into_iter().for_each(|segment| trajectory.push(segment));
        let all = claimed(&trajectory);
        assert_eq!(all.tokens(), trajectory.tokens());
        assert_eq!(trajectory.mask().as_slice(), [false, false, true, false, false, true]);
        assert_eq!(all.mask().as_slice(), [false, false, true, true, true, true]);
        assert!(all.versions().all(|(version, _)| version == WeightVersion(2)));
        assert_eq!(all.logprobs(), [-0.5, 0.0, 0.0, -0.5]);
    }

    #[test]
    fn kl_is_subtracted_and_a_reward_alone_is_its_advantage() {
        let grpo = || Box::new(Grpo::default());
        let subtracted = Subtracted(grpo());
        subtracted.validate().unwrap();
        assert_eq!(subtracted.terms().kl.coefficient, -Grpo::default().kl.coefficient);
        assert!(subtracted.terms().validate("grpo").is_err(), "the library refuses it");

        let batch = RewardBatch::new(&[1.0, 0.5], &[0, 0], &[2, 1]).unwrap();
        assert_eq!(Alone(grpo()).advantages(&batch).unwrap().advantages, [1.0, 1.0, 0.5]);
        assert_eq!(Alone(grpo()).min_group_size(), 1);
    }
}
