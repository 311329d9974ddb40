//! The state of one server of a fleet: how busy it is, whether it answers, and what it has done so far.

use std::time::{Duration, Instant};

use crate::attempt::Again;

/// Failures in a row after which a server that does answer, if only with errors, gets no more requests for a while.
const STRIKES: u32 = 3;
/// The first time that a server which failed is left alone. It doubles with every further failure.
const FIRST_REST: Duration = Duration::from_millis(200);
/// Rests stop doubling here.
const LONGEST_REST: Duration = Duration::from_secs(10);
/// A server that came back is trusted fully once it has been given this many requests at once.
const FULL_TRUST: usize = 64;

/// The work of one server of a [`Fleet`](crate::Fleet) since the fleet was made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EndpointCounts {
    /// Its address, without its query string and a password.
    pub endpoint: String,
    /// Requests that it was sent.
    pub requests: u64,
    /// Requests that it failed: no answer, or a passing error. A refusal of what was asked is not its failure.
    pub failures: u64,
    /// Requests under way now.
    pub busy: usize,
    /// Seconds that the answered requests took, all together.
    pub seconds: f64,
    /// Whether it gets requests now.
    pub is_up: bool,
}

impl EndpointCounts {
    /// The figures that only grow, of several servers, by name: `127.0.0.1:8000/requests`, `…/failures`, `…/seconds`.
    pub fn counters(of: &[Self]) -> Vec<(String, f64)> {
        let of_one = |counts: &Self| {
            let server = counts.endpoint.split("://").last().unwrap_or_default();
            let server = server.split('/').next().unwrap_or_default();
            [
                (format!("{server}/requests"), counts.requests as f64),
                (format!("{server}/failures"), counts.failures as f64),
                (format!("{server}/seconds"), counts.seconds),
            ]
        };
        of.iter().flat_map(of_one).collect()
    }
}

/// A server's state.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) counts: EndpointCounts,
    /// Failures since its last answer.
    strikes: u32,
    /// Rests since it was last trusted fully.
    rests: u32,
    /// The time until which it is left alone, whatever its health.
    pub(crate) rests_until: Option<Instant>,
    /// Requests at once while it is on probation; `None` is any number.
    probation: Option<usize>,
}

impl State {
    pub(crate) fn new(endpoint: String) -> Self {
        Self { counts: EndpointCounts { endpoint, is_up: true, ..EndpointCounts::default() }, ..Self::default() }
    }

    /// Whether it is to be asked first (0), because others are, or is only left (1, 2).
    pub(crate) fn rank(&self, now: Instant) -> u8 {
        match (self.counts.is_up, self.rests_until, self.probation) {
            (false, ..) => 2,
            (true, Some(until), _) if until > now => 2,
            (true, _, Some(most)) if self.counts.busy >= most => 1,
            _ => 0,
        }
    }

    pub(crate) fn begins(&mut self) {
        self.counts.requests += 1;
        self.counts.busy += 1;
    }

    pub(crate) fn answered(&mut self, took: Duration) {
        self.counts.busy -= 1;
        self.counts.seconds += took.as_secs_f64();
        self.strikes = 0;
        self.rests_until = None;
        self.counts.is_up = true;
        self.probation = self.probation.map(|most| most * 2).filter(|most| *most < FULL_TRUST);
        if self.probation.is_none() {
            self.rests = 0;
        }
    }

    /// Returns whether it goes down with this failure, so that somebody has to look after it.
    pub(crate) fn failed(&mut self, again: Again, answers: bool, now: Instant) -> bool {
        self.counts.busy -= 1;
        if again == Again::Never {
            self.strikes = 0;
            return false;
        }
        self.counts.failures += 1;
        if let Again::After(named) = again {
            self.rests_until = Some(now + named);
            return false;
        }
        self.strikes += 1;
        if !self.counts.is_up || (answers && self.strikes < STRIKES && self.probation.is_none()) {
            return false;
        }
        self.counts.is_up = false;
        true
    }

    /// Called when it has gone down: the time until it is asked how it is.
    pub(crate) fn rest(&mut self) -> Duration {
        let rest = FIRST_REST.saturating_mul(1 << self.rests.min(10)).min(LONGEST_REST);
        self.rests += 1;
        rest
    }

    /// It says that it is well: it gets a request, then two at once, then four.
    pub(crate) fn comes_back(&mut self) {
        self.counts.is_up = true;
        self.strikes = 0;
        self.probation = Some(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_came_back_is_trusted_step_by_step() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mut state = State::new("http://h".into());
        state.begins();
        assert!(state.failed(Again::Soon, false, now), "no connection");
        assert_eq!((state.rank(now), state.rest(), state.rest()), (2, FIRST_REST, FIRST_REST * 2));
        state.comes_back();
        for most in [1, 2, 4, 8, 16, 32] {
            (0..most).for_each(|_| state.begins());
            assert_eq!(state.rank(now), 1, "{most} at once");
            state.answered(second);
            assert_eq!(state.rank(now), 0);
            (1..most).for_each(|_| state.counts.busy -= 1);
        }
        (0..1000).for_each(|_| state.begins());
        assert_eq!(state.rank(now), 0, "any number at once");
        assert_eq!(state.rest(), FIRST_REST, "rests begin anew");
    }

    #[test]
    fn errors_take_a_server_down_and_refusals_do_not() {
        let now = Instant::now();
        let mut state = State::new("http://h".into());
        (0..9).for_each(|_| state.begins());
        for again in [Again::Soon, Again::Soon, Again::Never, Again::Soon, Again::Soon] {
            assert!(!state.failed(again, true, now));
        }
        assert!(!state.failed(Again::After(Duration::from_secs(5)), true, now));
        assert_eq!((state.rank(now), state.rank(now + Duration::from_secs(6))), (2, 0));
        assert!(state.failed(Again::Soon, true, now), "the third in a row");
        assert!(!state.failed(Again::Soon, true, now), "it is down already");
        assert_eq!((state.counts.failures, state.counts.requests, state.counts.busy), (7, 9, 1));
    }
}
