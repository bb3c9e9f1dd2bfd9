//! Who may ask: bearer keys, of which only SHA-256 hashes are kept.

use axum::http::{HeaderMap, StatusCode, header};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

use crate::server::error::ApiError;

/// What begins a line that has the hash of a key instead of the key. Without
/// it, the 64 hexadecimal digits of a hash could be a key themselves.
const HASH_PREFIX: &str = "sha256:";

/// The keys that are let in.
#[derive(Clone, Debug)]
pub struct Keys {
    hashes: Vec<[u8; 32]>,
}

/// What is wrong with a file of keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// Nobody would be let in.
    #[error("there is no key in it; write one a line, or `{HASH_PREFIX}` and the hash of one")]
    Empty,
    /// A hash with other than 64 hexadecimal digits.
    #[error("line {line}: after `{HASH_PREFIX}` come 64 hexadecimal digits")]
    Hash {
        /// Which line, from 1.
        line: usize,
    },
    /// A key that no HTTP header can carry.
    #[error("line {line}: a key has visible ASCII characters only, and no space")]
    Characters {
        /// Which line, from 1.
        line: usize,
    },
}

impl Keys {
    /// Reads keys, one a line: a key, or `sha256:` and the hash of one in
    /// hexadecimal. Blank lines and lines that begin with `#` are skipped.
    ///
    /// # Errors
    /// If a line is neither, or there is none. The error never has the key in it.
    pub fn parse(text: &str) -> Result<Self, KeysError> {
        let mut hashes = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let (line, entry) = (index + 1, line.trim());
            if entry.is_empty() || entry.starts_with('#') {
                continue;
            }
            let hash = match entry.strip_prefix(HASH_PREFIX) {
                Some(digits) => unhex(digits.trim()).ok_or(KeysError::Hash { line })?,
                None if entry.bytes().all(|byte| byte.is_ascii_graphic()) => hash(entry.as_bytes()),
                None => return Err(KeysError::Characters { line }),
            };
            hashes.push(hash);
        }
        if hashes.is_empty() {
            return Err(KeysError::Empty);
        }
        Ok(Self { hashes })
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.hashes.len()
    }

    /// Lets a request in, or says what its header lacks.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let Some(value) = headers.get(header::AUTHORIZATION) else {
            return Err(refused(
                "this server wants a key; send the header `Authorization: Bearer KEY`",
                "missing_api_key",
            ));
        };
        let key = value.as_bytes().split_at_checked(7);
        let key = key.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "));
        let Some((_, key)) = key else {
            return Err(refused(
                "the header `Authorization` has to be `Bearer` and a key",
                "invalid_api_key",
            ));
        };
        if self.contains(key.trim_ascii()) {
            return Ok(());
        }
        Err(refused("this key is not known here", "invalid_api_key"))
    }

    /// Compares with every key, and all of each, so that the time it takes
    /// says nothing about how near a guess is.
    fn contains(&self, key: &[u8]) -> bool {
        let hash = hash(key);
        let same = |found: Choice, known: &[u8; 32]| found | known.ct_eq(&hash);
        self.hashes.iter().fold(Choice::from(0), same).into()
    }
}

fn refused(message: &str, code: &'static str) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, message).with_code(code)
}

fn hash(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}

fn unhex(digits: &str) -> Option<[u8; 32]> {
    let digits = digits.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let value = |digit: u8| char::from(digit).to_digit(16);
        *byte = u8::try_from(value(pair[0])? * 16 + value(pair[1])?).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(value: &str) -> HeaderMap {
        let value = value.parse().expect("it is a header value");
        HeaderMap::from_iter([(header::AUTHORIZATION, value)])
    }

    #[test]
    fn keys_and_hashes_of_keys_let_in() {
        // printf %s "second" | sha256sum
        let file = "# staff\nfirst\n\n\
            sha256:16367aacb67a4a017c8da8ab95682ccb390863780f7114dda0a0e0c55644c7c4\n";
        let keys = Keys::parse(file).expect("it is right");
        assert_eq!(keys.count(), 2);
        for header in ["Bearer first", "bearer second", "Bearer  second"] {
            assert_eq!(keys.check(&with(header)), Ok(()), "{header}");
        }
    }

    #[test]
    fn others_are_told_what_is_missing() {
        let keys = Keys::parse("first").expect("it is right");
        let code = |headers| keys.check(&headers).expect_err("it is refused").code;
        assert_eq!(code(HeaderMap::new()), Some("missing_api_key"));
        for header in [
            "Bearer firs",
            "Bearer first2",
            "Bearer ",
            "Basic first",
            "first",
            "ä",
        ] {
            assert_eq!(code(with(header)), Some("invalid_api_key"), "{header}");
        }
    }

    #[test]
    fn files_that_are_wrong() {
        let wrong = |text| Keys::parse(text).expect_err("it is wrong");
        assert_eq!(wrong("# nobody\n"), KeysError::Empty);
        assert_eq!(wrong("a\nsha256:12"), KeysError::Hash { line: 2 });
        assert_eq!(wrong("two words"), KeysError::Characters { line: 1 });
    }

    /// What is kept cannot be turned back into a key.
    #[test]
    fn keys_are_not_kept() {
        let keys = Keys::parse("a-very-secret-key").expect("it is right");
        assert!(!format!("{keys:?}").contains("secret"));
    }
}
