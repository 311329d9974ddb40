//! One rollout in progress: tokens go into the trajectory exactly as they were seen and sampled.

use zerosearch_generate::{Finished, SequenceId};
use zerosearch_grammar::Action;
use zerosearch_trajectory::{Finish, Segment, TokenId, Trajectory, WeightVersion};

use crate::{Observation, Rollout, RolloutEnd, Task, ToolRecord, TurnRecord};

pub(crate) struct LiveRollout {
    pub(crate) turns: Vec<TurnRecord>,
    pub(crate) end: RolloutEnd,
    /// Its sequence, while the generator keeps one.
    pub(crate) id: Option<SequenceId>,
    trajectory: Trajectory,
    /// Sent to the generator, but nothing was sampled after it yet.
    unread: Option<Vec<TokenId>>,
}

impl LiveRollout {
    pub(crate) fn new(task: &Task) -> Self {
        let trajectory = Trajectory::new(task.prompt.clone());
        Self { turns: Vec::new(), end: RolloutEnd::Cancelled, id: None, trajectory, unread: None }
    }

    /// Takes in a turn that ended. `None` when the policy waits for an answer.
    pub(crate) fn take(
        &mut self,
        turn: Finished,
        text: String,
        action: Action,
        weights: WeightVersion,
        max_turns: usize,
    ) -> Option<RolloutEnd> {
        let Finished { tokens, finish, .. } = turn;
        let cut_off = match finish {
            Finish::Context => Some(RolloutEnd::Context),
            Finish::Cancelled => Some(RolloutEnd::Cancelled),
            Finish::TimedOut => Some(RolloutEnd::TimedOut),
            Finish::Stop | Finish::EndOfText | Finish::Length => None,
        };
        if tokens.is_empty() && cut_off.is_some() {
            // Nothing was sampled after the observation. Were it kept, the trajectory could be
            // longer than the context that it just filled.
            self.unread = None;
            if let Some(last) = self.turns.last_mut() {
                last.observation = None;
            }
            return cut_off;
        }
        if let Some(observation) = self.unread.take() {
            self.trajectory.push(Segment::Observation(observation));
        }
        self.trajectory.push(Segment::Policy { tokens, finish, weights });
        let answered = matches!(action, Action::Answer(_)).then_some(RolloutEnd::Answered);
        self.turns.push(TurnRecord { text, action, finish, call: None, observation: None, cut_tokens: 0 });
        let exhausted = (self.turns.len() >= max_turns).then_some(RolloutEnd::TurnsExhausted);
        answered.or(cut_off).or(exhausted)
    }

    /// Records what the last turn is answered; returns the tokens to send.
    pub(crate) fn answer(&mut self, observation: Observation, call: Option<ToolRecord>) -> &[TokenId] {
        let Observation { tokens, text, cut_tokens } = observation;
        if let Some(last) = self.turns.last_mut() {
            last.call = call;
            last.observation = Some(text);
            last.cut_tokens = cut_tokens;
        }
        self.unread.insert(tokens)
    }

    pub(crate) fn into_rollout(self, task: Task) -> Rollout {
        let Task { question_index, sample, question, golden_answers, .. } = task;
        Rollout {
            question_index,
            sample,
            question,
            golden_answers,
            trajectory: self.trajectory,
            turns: self.turns,
            end: self.end,
        }
    }
}
