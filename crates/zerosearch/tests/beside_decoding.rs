//! Searches beside decoding with the real generator: the shipped policy's rollouts are the same to the bit.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use zerosearch::generate::stream_seed;
use zerosearch::lm::{LanguageModel, LocalGenerator};
use zerosearch::rollout::{Noise, Rollout, RolloutConfig, RolloutPlan, Task};
use zerosearch::search::{Document, Query, SearchEngine, SearchError};
use zerosearch::text::PromptTemplate;

/// Finds a document that names the query, or fails; takes any time, in the order of arrival.
struct Hesitant {
    order: u64,
    threads: usize,
    arrivals: AtomicU64,
}

impl SearchEngine for Hesitant {
    fn search(&self, query: &Query<'_>) -> Result<Vec<Document>, SearchError> {
        let arrival = self.arrivals.fetch_add(1, Ordering::SeqCst);
        if self.order > 0 {
            std::thread::sleep(Duration::from_millis(stream_seed(&[self.order, arrival]) % 60));
        }
        match query.text.len() % 4 {
            0 => Err(SearchError::Index("moody".into())),
            _ => {
                let contents = format!("{} is known for being asked about.", query.text);
                Ok(vec![Document { contents, ..Document::default() }])
            }
        }
    }

    fn concurrency(&self) -> usize {
        self.threads
    }
}

#[test]
fn neither_the_time_of_an_answer_nor_the_threads_change_a_bit_of_a_real_policys_rollouts() {
    let model = LanguageModel::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/base")).unwrap();
    let template = PromptTemplate::for_model(&model.codec).unwrap();
    let questions = ["Which country is Moundou in?", "Who founded the city that Lake Ypacaraí is near?"];
    let tasks: Vec<Task> = (0..4)
        .map(|index: u64| {
            let question = questions[(index / 2) as usize];
            let prompt = model.codec.encode(&template.render(question).unwrap());
            Task { sample: index % 2, ..Task::new(index / 2, question, &["Chad".into()], prompt) }
        })
        .collect();
    let play = |order: u64, threads: usize, search_batch: usize, max_batch: usize| -> Vec<Rollout> {
        let engine = Hesitant { order, threads, arrivals: AtomicU64::new(0) };
        let config = RolloutConfig { max_turns: 3, max_new_tokens: 40, search_batch, ..RolloutConfig::default() };
        let plan = RolloutPlan { seed: 5, ..RolloutPlan::search(&engine, Noise::Off, &model.codec, config) };
        let mut generator = LocalGenerator::for_model(&model).unwrap().with_max_batch(max_batch);
        plan.run(&mut generator, tasks.clone(), &mut |_| {}).unwrap()
    };
    let expected = play(0, 1, usize::MAX, 256);
    assert!(expected.iter().map(Rollout::searches).sum::<usize>() > 1, "the policy searches");
    for (order, threads, search_batch, max_batch) in [(1, 1, 0, 256), (2, 4, 0, 2), (3, 2, 2, 3)] {
        assert_eq!(play(order, threads, search_batch, max_batch), expected, "order {order}");
    }
}
