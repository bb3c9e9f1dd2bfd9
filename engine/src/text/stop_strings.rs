//! Strings that end a text.

/// Looks for strings that end a text while it comes in pieces.
///
/// The first string to be complete ends the text; of those that are complete
/// at the same place, the longest. So where a text ends does not depend on how
/// it is cut into pieces. What might still become one of the strings is held
/// back, and nothing else is.
#[derive(Clone, Debug)]
pub struct StopStrings {
    strings: Vec<String>,
    include: bool,
    /// The end of the text that might be the beginning of a string.
    held: String,
}

/// What a piece comes to.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct StopOutput {
    /// What the text goes on with, for certain.
    pub text: String,
    /// The string that ended it.
    pub stopped: Option<StopMatch>,
}

/// A string that ended a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopMatch {
    /// Which, in the order given.
    pub index: usize,
    /// The string.
    pub string: String,
}

/// Why strings cannot end a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StopError {
    /// A string that is everywhere.
    #[error("a stop string must not be empty")]
    Empty,
}

impl StopStrings {
    /// Looks for these. The string itself is part of the text only if `include`.
    ///
    /// # Errors
    /// If one of them is empty.
    pub fn new(strings: Vec<String>, include: bool) -> Result<Self, StopError> {
        if strings.iter().any(String::is_empty) {
            return Err(StopError::Empty);
        }
        Ok(Self {
            strings,
            include,
            held: String::new(),
        })
    }

    /// The text goes on with this. After a string was found, nothing may follow.
    pub fn push(&mut self, text: &str) -> StopOutput {
        self.held.push_str(text);
        if let Some((start, end, index)) = self.find() {
            self.held.truncate(if self.include { end } else { start });
            let stopped = Some(StopMatch {
                index,
                string: self.strings[index].clone(),
            });
            return StopOutput {
                text: std::mem::take(&mut self.held),
                stopped,
            };
        }
        let keep = self.undecided();
        let rest = self.held.split_off(self.held.len() - keep);
        let text = std::mem::replace(&mut self.held, rest);
        StopOutput {
            text,
            stopped: None,
        }
    }

    /// The text goes on with this, and no string may end it yet, as before
    /// `min_tokens`. What was held back comes with it.
    pub fn pass(&mut self, text: &str) -> String {
        self.held.push_str(text);
        self.flush()
    }

    /// What was held back: the text ends here for another reason.
    pub fn flush(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// The start and the end of the string that is complete first, and which it is.
    fn find(&self) -> Option<(usize, usize, usize)> {
        let found = self
            .strings
            .iter()
            .enumerate()
            .filter_map(|(index, string)| {
                let start = self.held.find(string.as_str())?;
                Some((start, start + string.len(), index))
            });
        found.min_by_key(|&(start, end, index)| (end, start, index))
    }

    /// How many bytes at the end are the beginning of a string: the most that any string has.
    fn undecided(&self) -> usize {
        let of = |string: &String| {
            let longest = self.held.len().min(string.len() - 1);
            let lengths = (1..=longest)
                .rev()
                .filter(|&length| string.is_char_boundary(length));
            let mut beginnings = lengths.filter(|&length| self.held.ends_with(&string[..length]));
            beginnings.next().unwrap_or(0)
        };
        self.strings.iter().map(of).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pieces(strings: &[&str], include: bool, pieces: &[&str]) -> (Vec<String>, Option<usize>) {
        let strings = strings.iter().map(|&string| string.to_owned()).collect();
        let mut stop = StopStrings::new(strings, include).unwrap();
        let mut texts = Vec::new();
        for piece in pieces {
            let output = stop.push(piece);
            texts.push(output.text);
            if let Some(found) = output.stopped {
                return (texts, Some(found.index));
            }
        }
        texts.push(stop.flush());
        (texts, None)
    }

    #[test]
    fn a_string_is_found_across_pieces() {
        let found = pieces(&["\n\nHuman"], false, &["Yes.", "\n", "\nHu", "man: no"]);
        assert_eq!(
            found,
            (
                vec!["Yes.".into(), "".into(), "".into(), "".into()],
                Some(0)
            )
        );
    }

    #[test]
    fn only_what_may_become_a_string_is_held_back() {
        let found = pieces(&["\n\nHuman"], false, &["a\n", "b\n\nHub", "c"]);
        assert_eq!(found.0, ["a", "\nb\n\nHub", "c", ""]);
    }

    #[test]
    fn the_string_is_in_the_text_if_asked_for() {
        assert_eq!(pieces(&["END"], true, &["aEN", "Db"]).0.concat(), "aEND");
        assert_eq!(pieces(&["END"], false, &["aEN", "Db"]).0.concat(), "a");
    }

    #[test]
    fn the_first_to_be_complete_wins_and_then_the_longest() {
        assert_eq!(
            pieces(&["bcd", "c"], false, &["abcd"]),
            (vec!["ab".into()], Some(1))
        );
        assert_eq!(
            pieces(&["c", "bc"], false, &["abcd"]),
            (vec!["a".into()], Some(1))
        );
    }

    #[test]
    fn what_may_not_stop_yet_passes() {
        let mut stop = StopStrings::new(vec!["ab".into()], false).unwrap();
        assert_eq!(stop.pass("ab a"), "ab a");
        assert_eq!(
            stop.push("b"),
            StopOutput {
                text: "b".into(),
                stopped: None
            }
        );
    }

    #[test]
    fn an_empty_string_is_refused() {
        assert_eq!(
            StopStrings::new(vec![String::new()], false).unwrap_err(),
            StopError::Empty
        );
    }

    /// The rule, on the whole text: at each place where a character ends, is a string complete?
    fn oracle(text: &str, strings: &[String], include: bool) -> (String, Option<usize>) {
        for end in (0..=text.len()).filter(|&end| text.is_char_boundary(end)) {
            let complete =
                (0..strings.len()).filter(|&index| text[..end].ends_with(&strings[index]));
            let longest = complete.min_by_key(|&index| (usize::MAX - strings[index].len(), index));
            if let Some(index) = longest {
                let length = if include {
                    end
                } else {
                    end - strings[index].len()
                };
                return (text[..length].to_owned(), Some(index));
            }
        }
        (text.to_owned(), None)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn cutting_does_not_matter(
            text in prop::collection::vec("[abé€]{0,4}", 0..12),
            strings in prop::collection::vec("[abé€]{1,4}", 0..6),
            include: bool,
        ) {
            let mut stop = StopStrings::new(strings.clone(), include).unwrap();
            let (mut found, mut index) = (String::new(), None);
            for piece in &text {
                let output = stop.push(piece);
                found.push_str(&output.text);
                if let Some(stopped) = output.stopped {
                    index = Some(stopped.index);
                    break;
                }
            }
            if index.is_none() {
                found.push_str(&stop.flush());
            }
            prop_assert_eq!((found, index), oracle(&text.concat(), &strings, include));
        }

        /// As soon as no string can begin in what is held, it is let go.
        #[test]
        fn nothing_is_held_without_need(text in "[ab]{0,12}", strings in prop::collection::vec("[ab]{1,4}", 1..4)) {
            let mut stop = StopStrings::new(strings.clone(), false).unwrap();
            let output = stop.push(&text);
            let held = stop.flush();
            prop_assert!(output.stopped.is_some() || held.is_empty() || strings.iter().any(|string| string.starts_with(&held)));
        }
    }
}
