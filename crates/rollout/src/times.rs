//! Wall-clock times of a run's parts.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// The seconds of a run, by what they were spent on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RolloutTimes {
    /// From the first task to the end of the last rollout.
    pub total_s: f64,
    /// In which the generator was at work: prefilling, decoding, waiting for its server. Searches are answered beside it.
    pub decoding_s: f64,
    /// In which nothing decoded, because all rollouts in progress waited for their searches.
    pub waiting_s: f64,
    /// Of the searches, or calls of other tools, added up over their threads.
    pub searching_s: f64,
}

impl RolloutTimes {
    /// Share of the time in which nothing decoded; 0 where no time went by.
    pub fn idle_share(&self) -> f64 {
        if self.total_s > 0.0 { self.waiting_s / self.total_s } else { 0.0 }
    }
}

impl AddAssign for RolloutTimes {
    fn add_assign(&mut self, other: Self) {
        self.total_s += other.total_s;
        self.decoding_s += other.decoding_s;
        self.waiting_s += other.waiting_s;
        self.searching_s += other.searching_s;
    }
}
