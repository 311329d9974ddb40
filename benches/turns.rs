//! Turns that benches have a local generator play.

use zerosearch::generate::{Finished, GenerateError, Generator, Request, Sampling, SequenceId, TokenId, Turn, never};
use zerosearch::lm::LocalGenerator;

/// Questions with several samples each, whose sequences live on from turn to turn: an observation is computed, nothing else.
pub(crate) struct GroupRollouts {
    pub(crate) questions: u64,
    pub(crate) samples: u64,
    pub(crate) turns: usize,
    /// Tokens of a prompt, of a turn and of an observation.
    pub(crate) prompt: usize,
    pub(crate) new: usize,
    pub(crate) observation: usize,
}

impl GroupRollouts {
    /// Tokens that are sampled.
    pub(crate) fn sampled(&self) -> u64 {
        self.questions * self.samples * (self.turns * self.new) as u64
    }

    pub(crate) fn play(&self, generator: &mut LocalGenerator, vocabulary: usize) -> Result<(), GenerateError> {
        let mut alive = Vec::new();
        for question in 0..self.questions {
            let prompt = tokens(vocabulary, self.prompt, question);
            for sample in 0..self.samples {
                alive.push(start(generator, &prompt, question * self.samples + sample, self.new)?);
            }
        }
        run(generator)?;
        for at in 1..self.turns {
            for id in &alive {
                let seed = id.0 * 10 + at as u64;
                generator.extend(*id, &tokens(vocabulary, self.observation, seed), turn(seed, self.new))?;
            }
            run(generator)?;
        }
        Ok(())
    }
}

/// Tokens that differ from one another and from those of another seed.
pub(crate) fn tokens(vocabulary: usize, count: usize, seed: u64) -> Vec<TokenId> {
    (0..count as u64).map(|i| ((i * 31 + seed * 977 + 7) % vocabulary as u64) as TokenId).collect()
}

pub(crate) fn turn(seed: u64, max_new_tokens: usize) -> Turn {
    Turn { max_new_tokens, seed, stop: never(), deadline: None }
}

pub(crate) fn start(
    generator: &mut LocalGenerator,
    prompt: &[TokenId],
    seed: u64,
    new: usize,
) -> Result<SequenceId, GenerateError> {
    generator.start(Request { prompt, sampling: Sampling::default(), turn: turn(seed, new) })
}

/// Every turn under way, to its end.
pub(crate) fn run(generator: &mut LocalGenerator) -> Result<Vec<Finished>, GenerateError> {
    let mut all = Vec::new();
    loop {
        let finished = generator.poll()?;
        if finished.is_empty() {
            return Ok(all);
        }
        all.extend(finished);
    }
}
