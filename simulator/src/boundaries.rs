//! When each replica's step or leap ends, and which comes first.
//!
//! A winner tree (Knuth, The Art of Computer Programming 3, 5.4.1): leaves are
//! replicas, each inner node the earlier of its two children, the root the
//! first of all. A replica that changes its mind plays its games again, one a
//! level, and there is never an entry to throw away. At equal times the
//! replica that comes first in the list wins.

use foresail_core::time::Nanos;

const NEVER: Nanos = Nanos::MAX;

/// The ends of what replicas compute, by their places in a list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Boundaries {
    /// `nodes[1]` is the root, the children of `n` are `2n` and `2n + 1`, and
    /// the second half are the leaves: the time, and the place that it is of.
    nodes: Vec<(Nanos, u32)>,
    /// Places in use.
    len: usize,
}

impl Boundaries {
    /// The first end, and the place of its replica.
    pub(crate) fn first(&self) -> Option<(Nanos, usize)> {
        let (at, place) = *self.nodes.get(1)?;
        (at != NEVER).then_some((at, place as usize))
    }

    /// Says when the replica at this place ends what it computes; `None` if it computes nothing.
    pub(crate) fn set(&mut self, place: usize, end: Option<Nanos>) {
        let mut node = self.nodes.len() / 2 + place;
        self.nodes[node].0 = end.unwrap_or(NEVER);
        while node > 1 {
            node /= 2;
            self.nodes[node] = self.nodes[2 * node].min(self.nodes[2 * node + 1]);
        }
    }

    /// A replica that computes nothing joins at this place; those from there on move up by one.
    pub(crate) fn insert(&mut self, place: usize) {
        let mut ends = self.ends();
        ends.insert(place, NEVER);
        self.rebuild(&ends);
    }

    /// The replica at this place leaves; those after it move down by one.
    pub(crate) fn remove(&mut self, place: usize) {
        let mut ends = self.ends();
        ends.remove(place);
        self.rebuild(&ends);
    }

    fn ends(&self) -> Vec<Nanos> {
        let leaves = self.nodes.len() / 2;
        self.nodes[leaves..leaves + self.len]
            .iter()
            .map(|(at, _)| *at)
            .collect()
    }

    fn rebuild(&mut self, ends: &[Nanos]) {
        let leaves = ends.len().next_power_of_two();
        self.len = ends.len();
        self.nodes.clear();
        self.nodes.resize(2 * leaves, (NEVER, u32::MAX));
        for (place, end) in ends.iter().enumerate() {
            self.nodes[leaves + place] = (*end, place as u32);
        }
        for node in (1..leaves).rev() {
            self.nodes[node] = self.nodes[2 * node].min(self.nodes[2 * node + 1]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Act {
        Insert(usize),
        Remove(usize),
        Set(usize, Option<Nanos>),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            (0..40_usize).prop_map(Act::Insert),
            (0..40_usize).prop_map(Act::Remove),
            // Few different times, so that many are equal.
            (0..40_usize, prop::option::of(0..6_u64)).prop_map(|(place, at)| Act::Set(place, at)),
        ]
    }

    proptest! {
        #[test]
        fn the_first_is_the_earliest_and_of_equals_the_first_in_the_list(
            acts in prop::collection::vec(act(), 1..200),
        ) {
            let mut boundaries = Boundaries::default();
            let mut list: Vec<Option<Nanos>> = Vec::new();
            for act in acts {
                match act {
                    Act::Insert(place) => {
                        let place = place % (list.len() + 1);
                        list.insert(place, None);
                        boundaries.insert(place);
                    }
                    Act::Remove(place) if !list.is_empty() => {
                        let place = place % list.len();
                        list.remove(place);
                        boundaries.remove(place);
                    }
                    Act::Set(place, at) if !list.is_empty() => {
                        let place = place % list.len();
                        list[place] = at;
                        boundaries.set(place, at);
                    }
                    Act::Remove(_) | Act::Set(..) => {}
                }
                let first = list.iter().enumerate().filter_map(|(place, at)| Some(((*at)?, place))).min();
                prop_assert_eq!(boundaries.first(), first);
            }
        }
    }
}
