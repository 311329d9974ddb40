//! Threads that look for work without falling asleep.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rayon::Yield;

/// Time in which the other threads are expected. One that is busy with something else is not waited for.
const PATIENCE: Duration = Duration::from_micros(100);
/// Pauses of a thread that found nothing to do before it looks again: a fraction of a microsecond.
const PAUSES: usize = 16;

/// Whether some work holds the threads awake: what others start meanwhile must not wait for it.
static HELD: AtomicBool = AtomicBool::new(false);

/// Runs work, inside the thread pool, whose parallel operations follow one another closely, and keeps the pool's other threads from
/// falling asleep between them: to wake one takes as long as a small product. Work that is started meanwhile, inside it or beside
/// it, runs as if this function were not there.
///
/// ```
/// use zerosearch_kernels::host::{add_rows, with_threads_awake};
///
/// let mut x = vec![1.0; 100_000];
/// let y = vec![0.5; 100_000];
/// with_threads_awake(|| (0..10).for_each(|_| add_rows(&mut x, &y)));
/// assert_eq!(x[99_999], 6.0);
/// ```
pub fn with_threads_awake<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    if HELD.swap(true, Ordering::AcqRel) {
        return work();
    }
    let held = Held;
    let (awake, late, over) = (AtomicUsize::new(0), AtomicBool::new(false), AtomicBool::new(false));
    rayon::scope(|scope| {
        let others = rayon::current_num_threads() - 1;
        for _ in 0..others {
            scope.spawn(|_| {
                awake.fetch_add(1, Ordering::SeqCst);
                // A thread that came across this in the midst of an operation of the work would hold it up.
                if late.load(Ordering::SeqCst) {
                    return;
                }
                while !over.load(Ordering::Acquire) {
                    if rayon::yield_now() != Some(Yield::Executed) {
                        (0..PAUSES).for_each(|_| spin_loop());
                    }
                }
            });
        }
        let began = Instant::now();
        while awake.load(Ordering::SeqCst) < others && began.elapsed() < PATIENCE {
            spin_loop();
        }
        late.store(true, Ordering::SeqCst);
        let _over = Over(&over);
        let result = work();
        drop(held);
        result
    })
}

/// Lets others hold the threads afterwards.
struct Held;

impl Drop for Held {
    fn drop(&mut self) {
        HELD.store(false, Ordering::Release);
    }
}

/// Lets the threads go, also when the work panics.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use rayon::prelude::*;

    use super::*;

    /// The tests of this file hold the threads one after another.
    static ALONE: Mutex<()> = Mutex::new(());

    fn sum(count: u64) -> u64 {
        (0..count).into_par_iter().map(|x| x * x % 7).sum()
    }

    #[test]
    fn work_beside_it_and_inside_it_ends() {
        let _alone = ALONE.lock().unwrap();
        let expected = sum(10_000);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let inside = || with_threads_awake(|| sum(10_000));
                        assert_eq!(with_threads_awake(|| [sum(10_000), inside()]), [expected; 2]);
                        assert_eq!(sum(10_000), expected);
                    }
                });
            }
        });
        assert!(!HELD.load(Ordering::SeqCst));
    }

    #[test]
    fn a_pool_of_any_size_is_let_go_after_a_panic() {
        let _alone = ALONE.lock().unwrap();
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let broken = || pool.install(|| with_threads_awake(|| assert_eq!(sum(1000), 0, "as it should")));
            assert!(std::panic::catch_unwind(broken).is_err());
            assert!(!HELD.load(Ordering::SeqCst));
            assert_eq!(pool.install(|| with_threads_awake(|| sum(1000))), sum(1000));
        }
    }
}
