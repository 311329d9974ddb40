//! A step between a call and the policy, in which the model condenses what the tool said.

use zerosearch_trajectory::TokenId;

use crate::{Task, ToolRecord, TurnRecord};

/// A hook between a call and what the policy sees of it: the same generator first reads the output in a sequence of its own, and
/// what it writes there stands in the place of the output (reason-in-documents, Li et al. 2025, *Search-o1*).
///
/// The reading is sampled as a turn is, within the same number of new tokens, from a stream of the same name but with the
/// purpose `condense`. Its tokens are no part of the trajectory. One that does not fit into the context does not take place:
/// the policy sees the output itself. A call that failed is not read.
pub trait Condenser {
    /// The prompt of the reading; with `None` the policy sees the output itself.
    fn prompt(&self, reading: &Reading<'_>) -> Option<Vec<TokenId>>;

    /// The text that the policy sees instead of the output: data like the output itself, whose tags are escaped.
    fn condensed(&self, reading: &Reading<'_>, written: &Written<'_>) -> String;
}

/// A tool's output that is to be read.
#[derive(Clone, Copy, Debug)]
pub struct Reading<'a> {
    /// The question that the policy is working on.
    pub task: &'a Task,
    /// The policy's turns so far; the last one made the call.
    pub turns: &'a [TurnRecord],
    /// The call.
    pub call: &'a ToolRecord,
    /// The tool's text for the policy, not escaped and not cut.
    pub output: &'a str,
}

/// The model's text after the prompt of a reading.
#[derive(Clone, Copy, Debug)]
pub struct Written<'a> {
    /// Number of tokens of the prompt.
    pub prompt_tokens: usize,
    /// Number of sampled tokens.
    pub tokens: usize,
    /// The text, without a token that ended it.
    pub text: &'a str,
}
