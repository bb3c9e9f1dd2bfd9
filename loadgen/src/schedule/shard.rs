//! Which of several load generators sends a request.

use std::fmt;
use std::str::FromStr;

/// One of `count` load generators that send a plan together.
///
/// A single request goes to the shard of its id, a conversation, whole, to that of its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: u32,
    count: u32,
}

/// A shard that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected I/N, such as 1/4 for the first of four load generators, with I from 1 to N; found `{found}`"
)]
pub struct ShardError {
    /// What was given.
    pub found: String,
}

impl Shard {
    /// The only one: it sends everything.
    pub const WHOLE: Self = Self { index: 0, count: 1 };

    /// The shard of this number, from 1, of so many.
    ///
    /// # Errors
    /// If the number is 0 or above the count.
    pub fn new(number: u32, count: u32) -> Result<Self, ShardError> {
        let found = || format!("{number}/{count}");
        match number.checked_sub(1).filter(|index| *index < count) {
            Some(index) => Ok(Self { index, count }),
            None => Err(ShardError { found: found() }),
        }
    }

    /// Its number, from 1.
    #[must_use]
    pub fn number(self) -> u32 {
        self.index + 1
    }

    /// How many there are.
    #[must_use]
    pub fn count(self) -> u32 {
        self.count
    }

    /// Whether it sends this request.
    #[must_use]
    pub fn sends(self, id: u64, session: Option<u64>) -> bool {
        session.unwrap_or(id) % u64::from(self.count) == u64::from(self.index)
    }
}

impl FromStr for Shard {
    type Err = ShardError;

    fn from_str(text: &str) -> Result<Self, ShardError> {
        let parts = text.split_once('/');
        let numbers = parts.and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        let found = || ShardError {
            found: text.to_owned(),
        };
        let (number, count) = numbers.ok_or_else(found)?;
        Self::new(number, count).map_err(|_| found())
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number(), self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_read_as_it_is_shown() {
        for text in ["1/1", "2/3", "3/3"] {
            assert_eq!(text.parse::<Shard>().unwrap().to_string(), text);
        }
        for text in ["0/3", "4/3", "1/0", "1", "a/b", "1/2/3", "-1/2", ""] {
            let error = text.parse::<Shard>().unwrap_err();
            assert_eq!(error.found, text);
        }
    }

    #[test]
    fn every_request_has_one_sender_and_a_conversation_one_for_all() {
        let shards: Vec<Shard> = (1..=3)
            .map(|number| Shard::new(number, 3).unwrap())
            .collect();
        for id in 0..20_u64 {
            for session in [None, Some(7), Some(u64::MAX)] {
                let senders = shards.iter().filter(|shard| shard.sends(id, session));
                assert_eq!(senders.count(), 1, "{id} {session:?}");
            }
            let sends = |session| shards.iter().position(|shard| shard.sends(id, session));
            assert_eq!(sends(Some(7)), Some(1));
            assert_eq!(sends(None), Some((id % 3) as usize));
        }
    }
}
