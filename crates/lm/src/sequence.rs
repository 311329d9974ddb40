//! A sequence of the local generator, and the turn that it decodes.

use std::time::Instant;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use zerosearch_generate::{Finish, Finished, SampledToken, Sampling, SequenceId, Stop, TokenId, Turn};

use crate::cache::{BLOCK, BlockTable};
use crate::engine::{Draw, Rows};

/// A sequence between its turns and within them.
pub(crate) struct Sequence {
    /// Every token so far. The cache holds the first of them.
    pub(crate) tokens: Vec<TokenId>,
    pub(crate) cache: BlockTable,
    sampling: Sampling,
    /// A sequence that computes a prefix that this one waits for, and how many tokens they have in common.
    pub(crate) leader: Option<(SequenceId, usize)>,
    pub(crate) turn: Option<ActiveTurn>,
}

/// A turn that is being decoded.
pub(crate) struct ActiveTurn {
    rng: ChaCha8Rng,
    pub(crate) stop: Stop,
    pub(crate) limit: usize,
    pub(crate) deadline: Option<Instant>,
    pub(crate) cancelled: bool,
    pub(crate) tokens: Vec<SampledToken>,
}

impl Sequence {
    pub(crate) fn new(prompt: &[TokenId], sampling: Sampling, turn: Turn) -> Self {
        Self {
            tokens: prompt.to_vec(),
            cache: BlockTable::default(),
            sampling,
            leader: None,
            turn: Some(ActiveTurn::new(turn)),
        }
    }

    /// Tokens that the cache does not hold yet.
    pub(crate) fn pending(&self) -> usize {
        self.tokens.len() - self.cache.len()
    }

    /// Those of its tokens that it can take over from another sequence: the last one it computes itself, which yields the
    /// logits of its next draw.
    pub(crate) fn sharable(&self) -> &[TokenId] {
        self.tokens.split_last().map_or(&[], |(_, before)| before)
    }

    /// The next of its tokens, with a draw where they are the last. Where this is to be known, also how the token after that is drawn:
    /// if the turn may go on, within a context of so many tokens, and the cache has room.
    pub(crate) fn rows<'a>(&'a mut self, count: usize, eos: &'a [TokenId], ahead: Option<usize>) -> Rows<'a> {
        let Self { tokens, cache, sampling, turn, .. } = self;
        let range = cache.len()..cache.len() + count;
        let last = range.end == tokens.len();
        let has_room = cache.blocks().len() * BLOCK > range.end;
        let (mut draw, mut next) = (None, None);
        if let Some(turn) = turn.as_mut().filter(|_| last) {
            let drawn = turn.tokens.len();
            let banned = |drawn| if drawn < sampling.min_new_tokens { eos } else { &[] };
            draw = Some(Draw { sampling, banned: banned(drawn), uniform: uniform(&mut turn.rng, sampling) });
            let goes_on = ahead.is_some_and(|context| tokens.len() + 1 < context) && drawn + 1 < turn.limit;
            next = (goes_on && has_room).then(|| {
                let uniform = uniform(&mut turn.rng.clone(), sampling);
                Draw { sampling, banned: banned(drawn + 1), uniform }
            });
        }
        Rows { tokens: &tokens[range.clone()], start: range.start, blocks: cache.blocks(), draw, next }
    }

    pub(crate) fn finish(&mut self, id: SequenceId, finish: Finish) -> Option<Finished> {
        self.turn.take().map(|turn| Finished { id, tokens: turn.tokens, finish })
    }
}

impl ActiveTurn {
    pub(crate) fn new(turn: Turn) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(turn.seed),
            stop: turn.stop,
            limit: turn.max_new_tokens,
            deadline: turn.deadline,
            cancelled: false,
            tokens: Vec::new(),
        }
    }
}

/// The number in [0, 1) that a draw uses. A greedy one takes none from the stream.
pub(crate) fn uniform(rng: &mut ChaCha8Rng, sampling: &Sampling) -> f64 {
    if sampling.temperature == 0.0 {
        return 0.0;
    }
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}
