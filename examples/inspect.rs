//! One rollout of a training run: who wrote each token, what the policy thought of it, what the update made of it.
//!
//!     cargo run --release --example inspect -- runs/quickstart --step 10 --rollout 3
//!
//! The text first, coloured by who wrote it; then every trained token with its log-probability and its advantage.

use std::path::PathBuf;

use clap::Parser;
use zerosearch::Failure;
use zerosearch::metrics::{Author, Transcript, say};
use zerosearch::text::Codec;
use zerosearch::train::{read_samples, samples_path};
use zerosearch::trajectory::Segment;

#[derive(Parser)]
struct Arguments {
    /// A run's folder, with `rollouts/` in it.
    run: PathBuf,
    /// The folder of the policy's tokenizer; `base` in the run's folder if it is not given.
    #[arg(long)]
    model: Option<PathBuf>,
    /// The training step, counted from 1.
    #[arg(long, default_value_t = 1)]
    step: u64,
    /// Which of the step's rollouts.
    #[arg(long, default_value_t = 0)]
    rollout: usize,
}

fn main() -> Result<(), Failure> {
    zerosearch::init_logging();
    let arguments = Arguments::parse();
    let path = samples_path(arguments.run.join("rollouts"), arguments.step);
    let samples = read_samples(&path)?;
    let Some(sample) = samples.get(arguments.rollout) else {
        let (path, count, wanted) = (path.display(), samples.len(), arguments.rollout);
        return Err(Failure::message(format!(
            "{path} has {count} rollouts, numbered from 0; there is no number {wanted}"
        )));
    };
    let codec = Codec::read(arguments.model.unwrap_or_else(|| arguments.run.join("base")))?;
    let rollout = &sample.rollout;
    let mut transcript = Transcript::stdout();
    for segment in rollout.trajectory.segments() {
        let author = match segment {
            Segment::Prompt(_) => Author::Prompt,
            Segment::Policy { .. } => Author::Policy,
            Segment::Observation(_) => Author::Observation,
        };
        transcript.write(author, &codec.decode(&segment.ids().collect::<Vec<u32>>()));
    }
    let (mask, tokens) = (rollout.trajectory.mask(), rollout.trajectory.tokens());
    say(format!("\n\ngolden answers {:?}, reward {:.3}, {:?}", rollout.golden_answers, sample.reward, rollout.end));
    say(format!("{} tokens, {} of them trained on", tokens.len(), mask.trained()));
    say("position  advantage  log p     token");
    let advantages = sample.advantages.iter().map(Some).chain(std::iter::repeat(None));
    for ((position, logprob), advantage) in mask.trained_positions().zip(rollout.trajectory.logprobs()).zip(advantages)
    {
        let advantage = advantage.map_or("left out".into(), |advantage| format!("{advantage:>9.4}"));
        say(format!("{position:>8}  {advantage}  {logprob:>8.4}  {:?}", codec.decode(&[tokens[position]])));
    }
    Ok(())
}
