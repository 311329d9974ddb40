//! Waiting on several servers' answers at once, with a bound.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Applies `work` to every item, at most `limit` (at least 1) at a time; results stand in the order of the items.
///
/// The calling thread works too, so one item or a limit of one starts no thread. A panic in `work`
/// continues here.
///
/// ```
/// let squares = zerosearch_http::in_parallel(&[1, 2, 3, 4], 2, |number| number * number);
/// assert_eq!(squares, [1, 4, 9, 16]);
/// ```
pub fn in_parallel<T: Sync, R: Send>(items: &[T], limit: usize, work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return done };
            done.push((index, work(item)));
        }
    };
    let mut done = std::thread::scope(|scope| {
        let others: Vec<_> = (1..limit.min(items.len())).map(|_| scope.spawn(worker)).collect();
        let mut done = worker();
        for other in others {
            done.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        done
    });
    done.sort_unstable_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::in_parallel;

    #[test]
    fn order_is_kept_and_the_limit_holds() {
        let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let items: Vec<usize> = (0..40).collect();
        let results = in_parallel(&items, 4, |item| {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(((40 - item) % 5) as u64));
            running.fetch_sub(1, Ordering::SeqCst);
            *item
        });
        assert_eq!(results, items);
        assert!((2..=4).contains(&most.into_inner()));
    }

    #[test]
    fn a_limit_of_zero_and_no_items_are_fine() {
        assert_eq!(in_parallel(&[1, 2], 0, |item| item + 1), [2, 3]);
        assert!(in_parallel(&[], 3, |item: &u8| *item).is_empty());
    }
}
