//! Threads that look for work without falling asleep.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use rayon::Yield;

/// Time in which the threads are expected. One that is busy with something else is not waited for.
const PATIENCE: Duration = Duration::from_micros(100);
/// Pauses of a thread that found nothing to do before it looks again: a fraction of a microsecond.
const PAUSES: usize = 16;

/// Whether somebody holds the threads awake.
static HELD: AtomicBool = AtomicBool::new(false);

/// While it lives, the thread pool's threads do not fall asleep between parallel operations that follow one another closely, as those
/// of a step of decoding do: to wake a thread takes as long as a small product. It holds them for the first who asks; another one,
/// inside or beside it, holds nothing.
///
/// ```
/// use zerosearch_kernels::host::{ThreadsAwake, add_rows};
///
/// let (mut x, y) = (vec![1.0; 100_000], vec![0.5; 100_000]);
/// rayon::scope(|_| {
///     let _awake = ThreadsAwake::hold();
///     (0..10).for_each(|_| add_rows(&mut x, &y));
/// });
/// assert_eq!(x[99_999], 6.0);
/// ```
#[must_use = "the threads fall asleep again when it is dropped"]
pub struct ThreadsAwake(Option<Arc<State>>);

#[derive(Default)]
struct State {
    awake: AtomicUsize,
    /// Whether the operations have begun: a thread that came across its part in the midst of one would hold it up.
    late: AtomicBool,
    over: AtomicBool,
}

impl ThreadsAwake {
    /// Wakes the other threads of the pool that this thread is one of. Outside of a pool, or with more threads than processors, it holds
    /// nothing: a thread that only looks for work would take the time of one that has some.
    pub fn hold() -> Self {
        let threads = rayon::current_num_threads();
        if rayon::current_thread_index().is_none() || !(2..=processors()).contains(&threads) {
            return Self(None);
        }
        if HELD.swap(true, Ordering::AcqRel) {
            return Self(None);
        }
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        rayon::spawn_broadcast(move |_| shared.stay_awake());
        let began = Instant::now();
        while state.awake.load(Ordering::SeqCst) < threads - 1 && began.elapsed() < PATIENCE {
            spin_loop();
        }
        state.late.store(true, Ordering::SeqCst);
        Self(Some(state))
    }
}

/// Processors that this process may use.
fn processors() -> usize {
    // Linux reads files to tell.
    static PROCESSORS: LazyLock<usize> = LazyLock::new(|| std::thread::available_parallelism().map_or(1, usize::from));
    *PROCESSORS
}

impl State {
    fn stay_awake(&self) {
        self.awake.fetch_add(1, Ordering::SeqCst);
        if self.late.load(Ordering::SeqCst) {
            return;
        }
        while !self.over.load(Ordering::Acquire) {
            if rayon::yield_now() != Some(Yield::Executed) {
                (0..PAUSES).for_each(|_| spin_loop());
            }
        }
    }
}

impl Drop for ThreadsAwake {
    fn drop(&mut self) {
        if let Some(state) = &self.0 {
            state.over.store(true, Ordering::Release);
            HELD.store(false, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use rayon::prelude::*;

    use super::*;

    /// One test after another.
    static ALONE: Mutex<()> = Mutex::new(());

    fn sum(count: u64) -> u64 {
        (0..count).into_par_iter().map(|x| x * x % 7).sum()
    }

    #[test]
    fn work_beside_it_and_inside_it_ends() {
        let _alone = ALONE.lock();
        let expected = sum(10_000);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        assert!(ThreadsAwake::hold().0.is_none(), "outside of the pool");
                        rayon::scope(|_| {
                            let _awake = ThreadsAwake::hold();
                            assert_eq!(sum(10_000), expected);
                            let _again = ThreadsAwake::hold();
                            assert_eq!(sum(10_000), expected);
                        });
                    }
                });
            }
        });
        assert!(!HELD.load(Ordering::SeqCst));
    }

    #[test]
    fn pools_of_any_size_are_let_go_after_a_panic() {
        let _alone = ALONE.lock();
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let broken = || {
                pool.install(|| {
                    let _awake = ThreadsAwake::hold();
                    assert_eq!(sum(1000), 0, "as it should");
                });
            };
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(broken)).is_err());
            let again = pool.install(|| {
                let _awake = ThreadsAwake::hold();
                sum(1000)
            });
            assert_eq!(again, sum(1000));
        }
    }
}
