//! A tool of one's own in a training run.

mod fixture;

use std::sync::{Arc, Mutex};

use fixture::{Fixture, config, step};
use zerosearch_grammar::EpisodeFormat;
use zerosearch_reward::{Episode, RewardFn};
use zerosearch_rollout::{Tool, ToolCall, ToolOutput};

struct Sql;

impl Tool for Sql {
    fn tag(&self) -> &str {
        "sql"
    }

    fn call_batch(&self, calls: &[ToolCall<'_>]) -> Vec<ToolOutput> {
        calls.iter().map(|_| ToolOutput::new("1 row")).collect()
    }
}

/// Remembers the tools of the format that it was told.
#[derive(Clone, Default)]
struct Tools(Arc<Mutex<Vec<String>>>);

impl RewardFn for Tools {
    fn name(&self) -> &str {
        "tools"
    }

    fn reward(&self, _: &Episode<'_>) -> f32 {
        0.0
    }

    fn reward_in(&self, format: &EpisodeFormat, _: &Episode<'_>) -> f32 {
        self.0.lock().unwrap().clone_from(&format.tools);
        0.0
    }
}

#[test]
fn a_reward_is_told_the_tags_of_every_tool() {
    let (fixture, seen) = (Fixture::new(), Tools::default());
    let mut trainer = fixture.builder(config("grpo")).tool(Sql).reward(seen.clone()).build().unwrap();
    step(&mut trainer);
    assert_eq!(*seen.0.lock().unwrap(), ["search", "sql"]);
}
