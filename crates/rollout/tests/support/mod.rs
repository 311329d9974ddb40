//! A generator and engines that do what a test tells them, and remember what they were told.

#![allow(dead_code, unreachable_pub)] // every test file uses another part

use std::collections::BTreeMap;
use std::sync::Mutex;

use zerosearch_curriculum::{Curriculum, Progress};
use zerosearch_generate::{
    Finish, Finished, GenerateError, Generator, Request, SampledToken, SequenceId, TokenId, Turn, WeightVersion,
    stream_seed,
};
use zerosearch_grammar::EpisodeFormat;
use zerosearch_rollout::{Noise, Rollout, RolloutConfig, RolloutError, RolloutPlan, Task};
use zerosearch_search::{Document, Quality, Query, SearchEngine, SearchError};
use zerosearch_text::{Codec, SpecialTokens, train_bpe};

pub const EOS: &str = "<|end|>";
pub const PAD: &str = "<|pad|>";
/// A token that completes a tag and says more.
pub const LONG_CLOSE: &str = "</search> and so on";

/// Bytes, the tags that a trained policy would have as one token each, and some merged words.
pub fn codec() -> Codec {
    let special = SpecialTokens { eos: Some(EOS.into()), pad: Some(PAD.into()), ..SpecialTokens::default() };
    let added = ["<search>", LONG_CLOSE, "<answer>", "</answer>", "<information>", "</information>"];
    let texts = ["which question is the question about", "about this question", "Doc 1: document of the question"];
    train_bpe(texts.into_iter().map(str::to_owned), 320, &added, &special).unwrap()
}

/// The tokens of a text, one or more for each character, as no tokenizer would encode it.
pub fn spelled(codec: &Codec, text: &str) -> Vec<TokenId> {
    text.chars().flat_map(|c| codec.encode_document(&c.to_string())).collect()
}

pub fn task(codec: &Codec, question_index: u64, sample: u64) -> Task {
    let question = format!("question {question_index}");
    let prompt = codec.encode(&format!("{question}?"));
    Task { sample, ..Task::new(question_index, &question, &[format!("gold {question_index}")], prompt) }
}

pub fn tasks(codec: &Codec, questions: u64, samples: u64) -> Vec<Task> {
    (0..questions)
        .flat_map(|question| (0..samples).map(move |sample| (question, sample)))
        .map(|(q, s)| task(codec, q, s))
        .collect()
}

/// Tokens of a turn: a function of the sequence so far, the turn's number and its
/// seed, as with a real model.
pub type Policy<'a> = Box<dyn Fn(&[TokenId], usize, u64) -> Vec<TokenId> + 'a>;

pub struct Sequence {
    tokens: Vec<TokenId>,
    turns: usize,
    turn: Option<Turn>,
    /// The last observation did not fit: the next turn has no tokens.
    full: bool,
}

/// A generator whose model is a closure.
pub struct Scripted<'a> {
    pub policy: Policy<'a>,
    pub eos: Vec<TokenId>,
    /// Tokens that a sequence can hold.
    pub context: usize,
    /// Decides which turns end together, and in what order.
    pub schedule: u64,
    /// Fails at the n-th poll.
    pub fail_at_poll: Option<u64>,
    pub polls: u64,
    /// Sequences that were not released.
    pub live: BTreeMap<SequenceId, Sequence>,
    /// Everything that each sequence saw and sampled, in the order of their starts.
    pub seen: Vec<Vec<TokenId>>,
    /// The sampled tokens alone.
    pub sampled: Vec<Vec<SampledToken>>,
    /// The seeds of all turns.
    pub seeds: Vec<u64>,
    /// The most sequences that ever lived at a time.
    pub most_live: usize,
}

impl<'a> Scripted<'a> {
    pub fn new(codec: &Codec, policy: impl Fn(&[TokenId], usize, u64) -> Vec<TokenId> + 'a) -> Self {
        Self {
            policy: Box::new(policy),
            eos: codec.eos_ids().to_vec(),
            context: usize::MAX,
            schedule: 0,
            fail_at_poll: None,
            polls: 0,
            live: BTreeMap::new(),
            seen: Vec::new(),
            sampled: Vec::new(),
            seeds: Vec::new(),
            most_live: 0,
        }
    }

    /// Samples these tokens in every sequence, turn by turn; the last ones again and again.
    pub fn sampling(codec: &Codec, turns: Vec<Vec<TokenId>>) -> Self {
        Self::new(codec, move |_, turn, _| turns[turn.min(turns.len() - 1)].clone())
    }

    /// Writes these texts in every sequence, turn by turn; the last one again and again.
    pub fn writing(codec: &Codec, turns: &[&str]) -> Self {
        Self::sampling(codec, turns.iter().map(|text| codec.encode(text)).collect())
    }

    fn turn(&mut self, id: SequenceId) -> Option<Finished> {
        let sequence = self.live.get_mut(&id)?;
        let mut turn = sequence.turn.take()?;
        let mut script = (self.policy)(&sequence.tokens, sequence.turns, turn.seed).into_iter();
        sequence.turns += 1;
        let mut tokens = Vec::new();
        let finish = loop {
            if sequence.full || sequence.tokens.len() >= self.context {
                break Finish::Context;
            }
            if tokens.len() >= turn.max_new_tokens {
                break Finish::Length;
            }
            let token = script.next().unwrap_or(self.eos[0]);
            sequence.tokens.push(token);
            tokens.push(SampledToken::new(token, -(tokens.len() as f32) - token as f32 / 1000.0));
            if self.eos.contains(&token) {
                break Finish::EndOfText;
            }
            if (turn.stop)(token) {
                break Finish::Stop;
            }
        };
        let index = usize::try_from(id.0).unwrap();
        self.seen[index] = sequence.tokens.clone();
        self.sampled[index].extend(&tokens);
        Some(Finished { id, tokens, finish })
    }
}

impl Generator for Scripted<'_> {
    fn start(&mut self, request: Request<'_>) -> Result<SequenceId, GenerateError> {
        if request.prompt.is_empty() {
            return Err(GenerateError::EmptyPrompt);
        }
        if request.prompt.len() >= self.context {
            return Err(GenerateError::PromptTooLong { length: request.prompt.len(), context: self.context });
        }
        let id = SequenceId(self.seen.len() as u64);
        self.seen.push(request.prompt.to_vec());
        self.sampled.push(Vec::new());
        self.seeds.push(request.turn.seed);
        self.live
            .insert(id, Sequence { tokens: request.prompt.to_vec(), turns: 0, turn: Some(request.turn), full: false });
        self.most_live = self.most_live.max(self.live.len());
        Ok(id)
    }

    fn extend(&mut self, id: SequenceId, observation: &[TokenId], turn: Turn) -> Result<(), GenerateError> {
        let sequence =
            self.live.get_mut(&id).filter(|sequence| sequence.turn.is_none()).ok_or(GenerateError::NotWaiting(id.0))?;
        self.seeds.push(turn.seed);
        if sequence.tokens.len() + observation.len() < self.context {
            sequence.tokens.extend(observation);
            sequence.turn = Some(turn);
        } else {
            sequence.full = true;
            sequence.turn = Some(turn);
        }
        Ok(())
    }

    fn poll(&mut self) -> Result<Vec<Finished>, GenerateError> {
        self.polls += 1;
        if self.fail_at_poll == Some(self.polls) {
            return Err(GenerateError::Engine("out of memory".into()));
        }
        let decoding: Vec<SequenceId> = self.live.iter().filter(|(_, s)| s.turn.is_some()).map(|(id, _)| *id).collect();
        let lucky = |id: &SequenceId| stream_seed(&[self.schedule, self.polls, id.0]);
        let first = decoding.iter().copied().min_by_key(|id| lucky(id));
        let ending: Vec<SequenceId> =
            decoding.into_iter().filter(|id| Some(*id) == first || self.schedule == 0 || lucky(id) % 3 == 0).collect();
        Ok(ending.into_iter().filter_map(|id| self.turn(id)).collect())
    }

    fn release(&mut self, id: SequenceId) {
        self.live.remove(&id);
    }

    fn weight_version(&self) -> WeightVersion {
        WeightVersion(self.polls)
    }
}

/// Queries of an engine.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    pub text: String,
    pub top_k: usize,
    pub context: Option<(String, Vec<String>, Quality, u64)>,
}

pub type Answer<'a> = Box<dyn Fn(&Query<'_>) -> Result<Vec<Document>, SearchError> + Send + Sync + 'a>;

/// An engine that answers with a closure.
pub struct Engine<'a> {
    pub answer: Answer<'a>,
    /// Results that are kept from each batch.
    pub loses: usize,
    /// Callers at a time.
    pub threads: usize,
    pub asked: Mutex<Vec<Asked>>,
    pub batches: Mutex<Vec<usize>>,
}

impl<'a> Engine<'a> {
    pub fn new(answer: impl Fn(&Query<'_>) -> Result<Vec<Document>, SearchError> + Send + Sync + 'a) -> Self {
        Self { answer: Box::new(answer), loses: 0, threads: 1, asked: Mutex::default(), batches: Mutex::default() }
    }

    /// As many documents as asked for, naming the query and its seed.
    pub fn echo() -> Self {
        Self::new(|query| {
            let seed = query.context.map_or(0, |context| context.seed);
            Ok((0..query.top_k).map(|n| document(&format!("{} {n} {seed}", query.text))).collect())
        })
    }

    pub fn finding(documents: &[&str]) -> Self {
        let documents: Vec<Document> = documents.iter().map(|text| document(text)).collect();
        Self::new(move |_| Ok(documents.clone()))
    }

    pub fn failing() -> Self {
        Self::new(|_| Err(SearchError::Server { endpoint: "http://localhost:1".into(), message: "refused".into() }))
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

impl SearchEngine for Engine<'_> {
    fn search(&self, query: &Query<'_>) -> Result<Vec<Document>, SearchError> {
        let context = query.context.map(|c| (c.question.to_owned(), c.answers.to_vec(), c.quality, c.seed));
        self.asked.lock().unwrap().push(Asked { text: query.text.to_owned(), top_k: query.top_k, context });
        (self.answer)(query)
    }

    fn search_batch(&self, queries: &[Query<'_>]) -> Vec<Result<Vec<Document>, SearchError>> {
        self.batches.lock().unwrap().push(queries.len());
        queries.iter().map(|query| self.search(query)).skip(self.loses).collect()
    }

    fn concurrency(&self) -> usize {
        self.threads
    }
}

/// The format of every test that names no other.
pub fn format() -> EpisodeFormat {
    EpisodeFormat::default()
}

pub fn document(text: &str) -> Document {
    Document { contents: text.into(), ..Document::default() }
}

/// Always the same probability of noise.
pub struct Always(pub f64);

impl Curriculum for Always {
    fn noise_probability(&self, _: Progress) -> f64 {
        self.0
    }
}

const START: Progress = Progress { step: 0, total: 10, turn: 0, success_rate: None };

pub const HALF: Noise<'static> = Noise::Curriculum { curriculum: &Always(0.5), progress: START };

pub fn run(
    codec: &Codec,
    generator: &mut Scripted<'_>,
    engine: &Engine<'_>,
    config: RolloutConfig,
    tasks: Vec<Task>,
) -> Result<Vec<Rollout>, RolloutError> {
    let plan = RolloutPlan { seed: 7, step: 3, ..RolloutPlan::search(engine, HALF, codec, config) };
    plan.run(generator, tasks, &mut |_| {})
}
