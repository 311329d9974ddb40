//! One search with the bare question, before the policy says anything.

use zerosearch_generate::Stream;
use zerosearch_metrics::Author;
use zerosearch_rollout::{Observations, SearchTool, Tool, ToolCall};

use super::Method;
use crate::attempt::{Asked, Attempt};
use crate::session::Session;
use crate::{EvalError, Utterance};

/// The documents, in the words of a rollout, behind the prompt; then one turn.
pub(crate) struct Rag;

impl Method for Rag {
    fn answer(&self, session: &mut Session<'_>, asked: &[Asked<'_>]) -> Result<Vec<Attempt>, EvalError> {
        let mut openings = session.open(asked)?;
        let (codec, format) = (session.plan.codec, &session.plan.format);
        let observations = Observations::new(codec, format, session.plan.config.max_observation_tokens)?;
        let tasks = openings.iter().map(|opening| &opening.task);
        let calls: Vec<ToolCall<'_>> =
            tasks.map(|task| ToolCall { input: &task.question, task, stream: Stream::default(), format }).collect();
        let outputs = SearchTool::new(session.engine, session.plan.config.top_k).call_batch(&calls);
        for (opening, output) in openings.iter_mut().zip(outputs) {
            opening.queries.push(opening.task.question.clone());
            opening.search_failures += usize::from(output.text.is_err());
            let tokens = observations.of(&output).tokens;
            opening.transcript.push(Utterance { author: Author::Observation, text: codec.decode(&tokens) });
            opening.task.prompt.extend(tokens);
        }
        session.episodes(openings, 1)
    }
}
