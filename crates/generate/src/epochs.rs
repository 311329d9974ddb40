//! The order in which items are visited, epoch after epoch.

use rand::seq::SliceRandom;

use crate::Stream;

/// An endless walk over `0..count` in which every epoch visits each index once, in an order of its own.
///
/// The index at a position follows from the stream and the position alone, so a resumed run needs to remember how far it
/// came and nothing else. Ascending positions are cheap: an epoch's order is drawn once.
///
/// ```
/// use zerosearch_generate::{Epochs, Stream};
///
/// let order = || Epochs::new(5, Stream { seed: 7, purpose: "questions", ..Stream::default() });
/// let mut walk = order();
/// let visited: Vec<_> = (0..10).filter_map(|position| walk.index(position)).collect();
/// let (first, second) = visited.split_at(5);
/// assert!([first, second].iter().all(|epoch| (0..5).all(|index| epoch.contains(&index))));
/// assert_eq!(order().index(8), Some(visited[8]));
/// ```
#[derive(Clone, Debug)]
pub struct Epochs {
    count: usize,
    stream: Stream,
    /// The epoch that was visited last, and its order.
    drawn: Option<(u64, Vec<usize>)>,
}

impl Epochs {
    /// A walk over `count` items whose orders are drawn from `stream`; its step is the epoch.
    pub fn new(count: usize, stream: Stream) -> Self {
        Self { count, stream, drawn: None }
    }

    /// The index at a position, counted from 0 through all epochs; `None` where there are no items.
    pub fn index(&mut self, position: u64) -> Option<usize> {
        let epoch = position.checked_div(self.count as u64)?;
        let order = match self.drawn.take() {
            Some((drawn, order)) if drawn == epoch => order,
            _ => self.order(epoch),
        };
        let index = order.get((position % self.count as u64) as usize).copied();
        self.drawn = Some((epoch, order));
        index
    }

    fn order(&self, epoch: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.count).collect();
        order.shuffle(&mut Stream { step: epoch, ..self.stream }.rng());
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_that_of_earlier_versions() {
        // Drawn with the functions that the trainer and the simulator's fine-tuning had each for itself.
        let old = |count: usize, seed, purpose, epoch| {
            let mut order: Vec<usize> = (0..count).collect();
            order.shuffle(&mut Stream { seed, purpose, step: epoch, ..Stream::default() }.rng());
            order
        };
        for purpose in ["questions", "fine-tuning order"] {
            for (count, seed) in [(1, 0), (2, 9), (7, 3), (100, u64::MAX)] {
                let mut walk = Epochs::new(count, Stream { seed, purpose, ..Stream::default() });
                // Backwards too, and across borders.
                for position in (0..3 * count as u64 + 1).chain([0, 2 * count as u64, 1]) {
                    let (epoch, place) = (position / count as u64, position as usize % count);
                    assert_eq!(walk.index(position), Some(old(count, seed, purpose, epoch)[place]), "{position}");
                }
            }
        }
    }

    #[test]
    fn nothing_is_visited_where_there_is_nothing() {
        assert_eq!(Epochs::new(0, Stream::default()).index(3), None);
    }
}
