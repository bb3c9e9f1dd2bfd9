//! How long the server asks to wait before the next try.

use std::time::{Duration, SystemTime};

use foresail_core::time::Nanos;
use hyper::header::{HeaderMap, RETRY_AFTER};

/// What `Retry-After` asks for: seconds, or a date (RFC 9110, section 10.2.3). As OpenAI's clients
/// have it, seconds may have a fraction, and `retry-after-ms` goes before. What is neither is nothing.
pub(super) fn of(headers: &HeaderMap, today: impl FnOnce() -> SystemTime) -> Option<Nanos> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    if let Some(wait) = text("retry-after-ms").and_then(|ms| duration(ms, 1e-3)) {
        return Some(wait);
    }
    let asked = text(RETRY_AFTER.as_str())?;
    if let Some(wait) = duration(asked, 1.0) {
        return Some(wait);
    }
    let date = httpdate::parse_http_date(asked).ok()?;
    // A date that has passed asks for no wait.
    let wait = date.duration_since(today()).unwrap_or_default();
    Nanos::try_from(wait.as_nanos()).ok()
}

fn duration(text: &str, unit_seconds: f64) -> Option<Nanos> {
    let seconds = text.parse::<f64>().ok()? * unit_seconds;
    let wait = Duration::try_from_secs_f64(seconds).ok()?;
    Nanos::try_from(wait.as_nanos()).ok()
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn asked(name: &'static str, value: &str) -> Option<Nanos> {
        // Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110.
        let today = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_str(value).unwrap());
        of(&headers, || today)
    }

    #[test]
    fn seconds_and_dates_are_understood() {
        assert_eq!(asked("retry-after", "120"), Some(120_000_000_000));
        assert_eq!(asked("retry-after", " 0.5 "), Some(500_000_000));
        assert_eq!(asked("retry-after-ms", "250"), Some(250_000_000));
        let in_half_a_minute = "Sun, 06 Nov 1994 08:50:07 GMT";
        assert_eq!(asked("retry-after", in_half_a_minute), Some(30_000_000_000));
        let a_year_ago = "Sat, 06 Nov 1993 08:49:37 GMT";
        assert_eq!(asked("retry-after", a_year_ago), Some(0));
    }

    #[test]
    fn what_is_neither_asks_for_nothing() {
        for value in ["", "soon", "-1", "NaN", "inf", "1e300"] {
            assert_eq!(asked("retry-after", value), None, "{value:?}");
        }
        assert_eq!(asked("x-other", "3"), None);
    }
}
