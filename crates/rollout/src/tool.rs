//! Tools: the interface of everything that the policy can call.

use zerosearch_generate::Stream;
use zerosearch_grammar::EpisodeFormat;
use zerosearch_search::Quality;

use crate::{Task, ToolRecord};

/// Something that the policy calls by writing `<tag>input</tag>`, and whose output it reads in its next turn.
///
/// ```
/// use zerosearch_rollout::{Tool, ToolCall, ToolOutput};
///
/// /// Adds numbers up.
/// struct Sum;
///
/// impl Tool for Sum {
///     fn tag(&self) -> &str {
///         "sum"
///     }
///
///     fn call_batch(&self, calls: &[ToolCall<'_>]) -> Vec<ToolOutput> {
///         let sum = |input: &str| input.split('+').map(|number| number.trim().parse::<f64>()).sum::<Result<f64, _>>();
///         let output = |call: &ToolCall<'_>| match sum(call.input) {
///             Ok(sum) => ToolOutput::new(sum.to_string()),
///             Err(error) => ToolOutput::failure(error.to_string()),
///         };
///         calls.iter().map(output).collect()
///     }
/// }
/// ```
pub trait Tool: Send + Sync {
    /// The tag by which it is called.
    fn tag(&self) -> &str;

    /// Answers the calls of several episodes, blocking, in a thread beside decoding. Outputs stand in the order of the calls, and
    /// depend on nothing but their own call. A panic is the failure of its call.
    fn call_batch(&self, calls: &[ToolCall<'_>]) -> Vec<ToolOutput>;

    /// How many threads may call it at a time.
    ///
    /// With 1, the default, one thread calls it with all that has gathered while it was busy. With more, each thread has a
    /// call of its own: right for a tool that waits on a network.
    fn concurrency(&self) -> usize {
        1
    }
}

/// A call of a tool.
#[derive(Clone, Copy, Debug)]
pub struct ToolCall<'a> {
    /// The text between the tags, without surrounding white space; never empty.
    pub input: &'a str,
    /// The question that the policy is working on.
    pub task: &'a Task,
    /// Names the random draws of this call; a tool that draws sets its own purpose.
    pub stream: Stream,
    /// The words of the episode.
    pub format: &'a EpisodeFormat,
}

/// A tool's answer to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolOutput {
    /// The text for the policy, or the reason of a failure. It is data: its tags are escaped, and too long a text is cut.
    pub text: Result<String, String>,
    /// The documents that a search found, for the record.
    pub documents: Vec<String>,
    /// The quality that a simulated engine was told to write, for the record.
    pub quality: Option<Quality>,
}

impl ToolOutput {
    /// An output of text alone.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: Ok(text.into()), documents: Vec::new(), quality: None }
    }

    /// The tool could not answer. The policy is told that much, the reason is recorded.
    pub fn failure(reason: impl Into<String>) -> Self {
        Self { text: Err(reason.into()), documents: Vec::new(), quality: None }
    }

    pub(crate) fn into_record(self, input: &str) -> ToolRecord {
        let Self { text, documents, quality } = self;
        ToolRecord { input: input.to_owned(), quality, documents, failure: text.err() }
    }
}
