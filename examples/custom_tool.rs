//! A tool of your own beside search, called by a policy that knows its turns by heart.
//!
//!     cargo run --release --example custom_tool
//!
//! A policy calls a tool by writing `<tag>input</tag>` and reads the output in its next turn. The tokens of an output are never
//! trained on; `TrainerBuilder::tool` takes the same value into training.

use std::sync::Arc;

use zerosearch::Failure;
use zerosearch::generate::{
    Finish, Finished, GenerateError, Generator, Request, SampledToken, SequenceId, TokenId, Turn, WeightVersion,
};
use zerosearch::rollout::{Noise, RolloutConfig, RolloutPlan, Task, Tool, ToolCall, ToolOutput};
use zerosearch::search::{Bm25Index, Document};
use zerosearch::text::{Codec, SpecialTokens, train_bpe};

/// Adds whole numbers.
struct Sum;

impl Tool for Sum {
    fn tag(&self) -> &str {
        "sum"
    }

    fn call_batch(&self, calls: &[ToolCall<'_>]) -> Vec<ToolOutput> {
        let output = |call: &ToolCall<'_>| {
            let numbers = call.input.split('+').map(|number| number.trim().parse::<i64>());
            match numbers.sum::<Result<i64, _>>() {
                Ok(sum) => ToolOutput::new(sum.to_string()),
                // A failure is data: the policy is told, the record keeps the reason, the run goes on.
                Err(error) => ToolOutput::failure(format!("{}: {error}", call.input)),
            }
        };
        calls.iter().map(output).collect()
    }
}

/// Writes the same turns whatever it reads. Policies that think live in `zerosearch::lm`.
struct ByHeart<'a> {
    codec: &'a Codec,
    turns: std::vec::IntoIter<&'static str>,
    open: Option<Turn>,
}

impl Generator for ByHeart<'_> {
    fn start(&mut self, request: Request<'_>) -> Result<SequenceId, GenerateError> {
        self.open = Some(request.turn);
        Ok(SequenceId(0))
    }

    fn extend(&mut self, _: SequenceId, _: &[TokenId], turn: Turn) -> Result<(), GenerateError> {
        self.open = Some(turn);
        Ok(())
    }

    fn poll(&mut self) -> Result<Vec<Finished>, GenerateError> {
        let Some(mut turn) = self.open.take() else { return Ok(Vec::new()) };
        let mut tokens = Vec::new();
        for id in self.codec.encode(self.turns.next().unwrap_or_default()) {
            tokens.push(SampledToken::new(id, -0.5));
            if (turn.stop)(id) {
                break;
            }
        }
        Ok(vec![Finished { id: SequenceId(0), tokens, finish: Finish::Stop }])
    }

    fn release(&mut self, _: SequenceId) {}

    fn weight_version(&self) -> WeightVersion {
        WeightVersion(0)
    }
}

fn main() -> Result<(), Failure> {
    let passages = ["Peru has 191 airports.", "Chad has 59 airports."];
    let document = |text: &str| Document { contents: text.into(), ..Document::default() };
    let engine = Bm25Index::new(passages.map(document))?;
    let special = SpecialTokens { eos: Some("<|end|>".into()), ..SpecialTokens::default() };
    let codec = train_bpe(passages.map(String::from).into_iter(), 300, &[], &special)?;

    let mut plan = RolloutPlan::search(&engine, Noise::Off, &codec, RolloutConfig::default());
    plan.tools.push(Arc::new(Sum));
    let turns = vec![
        "<search>airports of Peru and Chad</search>",
        "<sum>191 + many</sum>",
        "<sum>191 + 59</sum> and what follows is never sampled",
        "<answer>250</answer>",
    ];
    let mut policy = ByHeart { codec: &codec, turns: turns.into_iter(), open: None };
    let question = "How many airports do Peru and Chad have together?";
    let task = Task::new(0, question, &["250".into()], codec.encode(question));
    let rollout = plan.run(&mut policy, vec![task], &mut |_| {})?.remove(0);

    for turn in &rollout.turns {
        println!("policy: {}", turn.text);
        if let Some(observation) = &turn.observation {
            println!("reads:  {}", observation.trim());
        }
    }
    let mut calls = rollout.calls();
    let (search, wrong, right) = (calls.next(), calls.next(), calls.next());
    assert_eq!(search.map(|call| call.documents.len()), Some(2));
    assert!(wrong.is_some_and(|call| call.failure.as_deref().is_some_and(|reason| reason.starts_with("191 + many"))));
    assert!(right.is_some_and(|call| call.failure.is_none()));
    assert_eq!(rollout.answer(&plan.format), Some("250"));

    // Who wrote a token decides whether it is trained on; nothing else does.
    let trained = rollout.trajectory.mask().trained_positions().count();
    let (all, prompt) = (rollout.trajectory.tokens().len(), rollout.trajectory.prompt_len());
    println!("{all} tokens: {prompt} of the prompt, {trained} trained, {} read", all - prompt - trained);
    assert!(trained > 0 && trained + prompt < all);
    Ok(())
}
