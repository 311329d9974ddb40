//! The one search of [`Strategy::Rag`](crate::Strategy::Rag): the bare question, before the policy says anything.

use zerosearch_generate::Stream;
use zerosearch_metrics::Author;
use zerosearch_rollout::{Observations, RolloutPlan, SearchTool, Task, Tool, ToolCall};
use zerosearch_search::SearchEngine;

use crate::prediction::Opening;
use crate::{EvalError, Utterance};

/// Searches for every question of a chunk at once and puts the documents, in the words of a rollout, behind the prompts.
pub(crate) fn retrieve(
    engine: &dyn SearchEngine,
    plan: &RolloutPlan<'_>,
    tasks: &mut [Task],
    openings: &mut [Opening],
) -> Result<(), EvalError> {
    let (codec, format) = (plan.codec, &plan.format);
    let observations = Observations::new(codec, format, plan.config.max_observation_tokens)?;
    let calls: Vec<ToolCall<'_>> =
        tasks.iter().map(|task| ToolCall { input: &task.question, task, stream: Stream::default(), format }).collect();
    let outputs = SearchTool::new(engine, plan.config.top_k).call_batch(&calls);
    for ((task, opening), output) in tasks.iter_mut().zip(openings).zip(outputs) {
        opening.searches += 1;
        opening.search_failures += usize::from(output.text.is_err());
        let tokens = observations.of(&output).tokens;
        opening.transcript.push(Utterance { author: Author::Observation, text: codec.decode(&tokens) });
        task.prompt.extend(tokens);
    }
    Ok(())
}
