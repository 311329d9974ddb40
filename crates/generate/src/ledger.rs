//! Usage of a run, by role.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Who works in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The model that is trained. A call is a turn.
    Policy,
    /// The model that plays the search engine. A call is a completion.
    Simulator,
    /// The model that judges interactions. A call is a completion.
    Judge,
    /// Whatever answers searches, a simulator too. A call is a query.
    Engine,
}

impl Role {
    /// All of them, in their order.
    pub const ALL: [Self; 4] = [Self::Policy, Self::Simulator, Self::Judge, Self::Engine];

    /// The name, as in a ledger's file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Simulator => "simulator",
            Self::Judge => "judge",
            Self::Engine => "engine",
        }
    }
}

/// Usage of one role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Calls, answered or failed.
    pub calls: u64,
    /// Calls that failed.
    pub failures: u64,
    /// Calls that a cache answered.
    pub cache_hits: u64,
    /// Tokens read: prompts, and documents where the policy reads them. 0 where they are not counted.
    pub tokens_in: u64,
    /// Tokens sampled.
    pub tokens_out: u64,
    /// The durations of all calls together, in seconds; calls made as one batch share one duration.
    pub wall_seconds: f64,
    /// The time during which it worked on at least one call, in seconds.
    pub device_seconds: f64,
    /// The time during which it had nothing to do, in seconds: the run's, without `device_seconds`.
    pub idle_seconds: f64,
}

impl Usage {
    /// The sum of two.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            calls: self.calls + other.calls,
            failures: self.failures + other.failures,
            cache_hits: self.cache_hits + other.cache_hits,
            tokens_in: self.tokens_in + other.tokens_in,
            tokens_out: self.tokens_out + other.tokens_out,
            wall_seconds: self.wall_seconds + other.wall_seconds,
            device_seconds: self.device_seconds + other.device_seconds,
            idle_seconds: self.idle_seconds + other.idle_seconds,
        }
    }

    /// The growth since `earlier`, a former state of the same account.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            calls: self.calls.saturating_sub(earlier.calls),
            failures: self.failures.saturating_sub(earlier.failures),
            cache_hits: self.cache_hits.saturating_sub(earlier.cache_hits),
            tokens_in: self.tokens_in.saturating_sub(earlier.tokens_in),
            tokens_out: self.tokens_out.saturating_sub(earlier.tokens_out),
            wall_seconds: self.wall_seconds - earlier.wall_seconds,
            device_seconds: self.device_seconds - earlier.device_seconds,
            idle_seconds: self.idle_seconds - earlier.idle_seconds,
        }
    }
}

/// The accounts of a run, one for each [`Role`]. Clones are the same ledger.
///
/// ```
/// use zerosearch_generate::{Ledger, Role, Usage};
///
/// let ledger = Ledger::new();
/// let account = ledger.account(Role::Simulator);
/// {
///     let _working = account.begin(); // counts the time until it is dropped
///     account.add(Usage { calls: 2, tokens_out: 120, ..Usage::default() });
/// }
/// assert_eq!(ledger.usage(Role::Simulator).calls, 2);
/// assert_eq!(ledger.usages().len(), 1, "the others did nothing");
/// ```
#[derive(Clone, Debug)]
pub struct Ledger {
    began: Instant,
    accounts: Arc<[Account; 4]>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { began: Instant::now(), accounts: Arc::default() }
    }
}

impl Ledger {
    /// An empty ledger; idle time counts from now on.
    pub fn new() -> Self {
        Self::default()
    }

    /// The account of a role.
    pub fn account(&self, role: Role) -> Account {
        self.accounts[role as usize].clone()
    }

    /// Usage of a role so far.
    pub fn usage(&self, role: Role) -> Usage {
        let now = Instant::now();
        let (mut usage, earlier) = self.accounts[role as usize].state().now(now);
        if usage == Usage::default() {
            return earlier;
        }
        usage.idle_seconds = (now.duration_since(self.began).as_secs_f64() - usage.device_seconds).max(0.0);
        usage.plus(earlier)
    }

    /// Usage of every role that did anything.
    pub fn usages(&self) -> BTreeMap<Role, Usage> {
        let usages = Role::ALL.into_iter().map(|role| (role, self.usage(role)));
        usages.filter(|(_, usage)| *usage != Usage::default()).collect()
    }

    /// Goes on from what an earlier process of the run had used, in the place of what was gone on from before.
    pub fn resume(&self, earlier: &BTreeMap<Role, Usage>) {
        for role in Role::ALL {
            self.accounts[role as usize].state().earlier = earlier.get(&role).copied().unwrap_or_default();
        }
    }
}

/// Where one role reports to. Clones are the same account; the default one belongs to no ledger.
#[derive(Clone, Debug, Default)]
pub struct Account(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    usage: Usage,
    /// Of processes before.
    earlier: Usage,
    /// Calls under way, and since when there are some.
    active: usize,
    since: Option<Instant>,
}

impl State {
    /// The usage of this process and of those before.
    fn now(&self, now: Instant) -> (Usage, Usage) {
        let mut usage = self.usage;
        usage.device_seconds += self.since.map_or(Duration::ZERO, |since| now.duration_since(since)).as_secs_f64();
        (usage, self.earlier)
    }
}

impl Account {
    /// Adds counts. Times are counted by [`begin`](Self::begin).
    pub fn add(&self, usage: Usage) {
        let mut state = self.state();
        state.usage = state.usage.plus(usage);
    }

    /// A call, or a batch of them, that lasts until the guard is dropped.
    pub fn begin(&self) -> Working {
        let began = Instant::now();
        let mut state = self.state();
        state.active += 1;
        state.since.get_or_insert(began);
        Working { account: self.clone(), began }
    }

    /// The sums are whole even if a thread panicked while it held them.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts the time until it is dropped; see [`Account::begin`].
#[derive(Debug)]
#[must_use = "the time counts until it is dropped"]
pub struct Working {
    account: Account,
    began: Instant,
}

impl Drop for Working {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut state = self.account.state();
        state.usage.wall_seconds += now.duration_since(self.began).as_secs_f64();
        state.active -= 1;
        if state.active == 0
            && let Some(since) = state.since.take()
        {
            state.usage.device_seconds += now.duration_since(since).as_secs_f64();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_at_once_share_the_device_and_not_the_wall_clock() {
        let ledger = Ledger::new();
        let account = ledger.account(Role::Engine);
        let guards = [account.begin(), account.begin(), account.begin()];
        std::thread::sleep(Duration::from_millis(5));
        let during = ledger.usage(Role::Engine);
        assert!(during.device_seconds >= 0.005 && during.wall_seconds == 0.0, "{during:?}");
        drop(guards);
        let after = ledger.usage(Role::Engine);
        assert!(after.wall_seconds > 2.0 * after.device_seconds, "{after:?}");
        assert!(after.device_seconds >= during.device_seconds);
        std::thread::sleep(Duration::from_millis(5));
        let idle = ledger.usage(Role::Engine);
        assert!(idle.device_seconds == after.device_seconds && idle.idle_seconds >= after.idle_seconds + 0.005);
    }

    #[test]
    fn a_resumed_ledger_goes_on_and_a_role_that_did_nothing_is_absent() {
        let before = Usage { calls: 7, tokens_in: 3, device_seconds: 60.0, idle_seconds: 40.0, ..Usage::default() };
        let ledger = Ledger::new();
        ledger.resume(&BTreeMap::from([(Role::Judge, before)]));
        assert_eq!(ledger.usages(), BTreeMap::from([(Role::Judge, before)]));
        ledger.account(Role::Judge).add(Usage { calls: 2, failures: 1, ..Usage::default() });
        let usage = ledger.usage(Role::Judge);
        assert_eq!((usage.calls, usage.failures, usage.tokens_in), (9, 1, 3));
        assert!(usage.idle_seconds >= 40.0);
        // A run that goes back to its last checkpoint does not count twice.
        ledger.resume(&BTreeMap::from([(Role::Judge, before)]));
        assert_eq!(ledger.usage(Role::Judge).calls, 9);
        let since = ledger.usage(Role::Judge).since(before);
        assert_eq!((since.calls, since.failures, since.tokens_in), (2, 1, 0));
    }
}
