//! What a request is called in answers and logs.

use axum::http::HeaderMap;

use crate::server::error::ApiError;

/// The header that a client names its request with, and is answered with.
pub(crate) const HEADER: &str = "x-request-id";

/// The longest name (characters).
const LENGTH_MAX: usize = 128;

/// The name that a client gave, or a new one.
pub(crate) fn of(headers: &HeaderMap) -> Result<String, ApiError> {
    let Some(value) = headers.get(HEADER) else {
        return random();
    };
    let text = value.to_str().ok().filter(|text| is_valid(text));
    text.map(str::to_owned).ok_or_else(|| invalid(HEADER))
}

/// Checks a name from elsewhere than the header.
pub(crate) fn check(param: &'static str, id: &str) -> Result<(), ApiError> {
    if is_valid(id) {
        Ok(())
    } else {
        Err(invalid(param).with_param(param))
    }
}

/// Anything else could break the line of a log, or the log's size.
fn is_valid(id: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(&byte);
    (1..=LENGTH_MAX).contains(&id.len()) && id.bytes().all(allowed)
}

fn invalid(name: &str) -> ApiError {
    ApiError::invalid(format!(
        "`{name}` has 1 to {LENGTH_MAX} characters, letters, digits and -_.:/+=@ only"
    ))
}

/// 128 random bits.
pub(crate) fn random() -> Result<String, ApiError> {
    Ok(format!("{:016x}{:016x}", random_u64()?, random_u64()?))
}

/// 64 random bits, of the system.
pub(crate) fn random_u64() -> Result<u64, ApiError> {
    getrandom::u64()
        .map_err(|error| ApiError::internal(format!("the system has no random numbers: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_header(value: &[u8]) -> Result<String, ApiError> {
        let value = axum::http::HeaderValue::from_bytes(value).expect("it is a header value");
        let name = HEADER.parse().expect("it is a header name");
        of(&HeaderMap::from_iter([(name, value)]))
    }

    #[test]
    fn a_given_name_is_kept() {
        assert_eq!(
            of_header(b"benchmark-12:3"),
            Ok("benchmark-12:3".to_owned())
        );
    }

    #[test]
    fn names_that_could_break_a_log_are_refused() {
        for id in [&b""[..], b"a b", b"{\"a\":1}", &[0xe4], &[b'a'; 129]] {
            assert!(of_header(id).is_err(), "{id:?}");
        }
    }

    #[test]
    fn new_names_differ() {
        let new = || of(&HeaderMap::new()).expect("there are random numbers");
        assert_ne!(new(), new());
        assert_eq!(new().len(), 32);
    }
}
