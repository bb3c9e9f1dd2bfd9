//! The Python dict literals inside ServeGen's JSON: `{4: 0.25, 5: 7.5e-01}`.

/// Token counts and their probabilities, in the order of the text; empty for
/// `{}`. The error is the byte at which it stops fitting.
pub(super) fn parse_dict(text: &str) -> Result<Vec<(u32, f64)>, usize> {
    let mut rest = Rest { text, at: 0 };
    let mut pairs = Vec::new();
    rest.expect("{")?;
    if rest.take("}") {
        return rest.end(pairs);
    }
    loop {
        let start = rest.at;
        let key = rest.number().parse().map_err(|_| start)?;
        rest.expect(": ")?;
        let start = rest.at;
        let value: f64 = rest.number().parse().map_err(|_| start)?;
        if !(0.0..=1.0).contains(&value) {
            return Err(start);
        }
        pairs.push((key, value));
        if rest.take("}") {
            return rest.end(pairs);
        }
        rest.expect(", ")?;
    }
}

struct Rest<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Rest<'a> {
    fn take(&mut self, token: &str) -> bool {
        let found = self.text[self.at..].starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    fn expect(&mut self, token: &str) -> Result<(), usize> {
        if self.take(token) {
            Ok(())
        } else {
            Err(self.at)
        }
    }

    /// The characters of which numbers consist.
    fn number(&mut self) -> &'a str {
        let text = &self.text[self.at..];
        let is_part = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '-' | '+');
        let length = text.find(|c| !is_part(c)).unwrap_or(text.len());
        self.at += length;
        &text[..length]
    }

    fn end<T>(&self, value: T) -> Result<T, usize> {
        if self.at == self.text.len() {
            Ok(value)
        } else {
            Err(self.at)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dicts() {
        assert_eq!(parse_dict("{}"), Ok(vec![]));
        assert_eq!(
            parse_dict("{4: 7.2e-05, 12: 1.0}"),
            Ok(vec![(4, 7.2e-5), (12, 1.0)])
        );
    }

    #[test]
    fn other_texts_say_where() {
        for (text, at) in [
            ("", 0),
            ("{", 1),
            ("{} ", 2),
            ("{4}", 2),
            ("{4:1}", 2),
            ("{4: }", 4),
            ("{4: 1.5}", 4),
            ("{4: nan}", 4),
            ("{-4: 1}", 1),
            ("{4: 1,5: 0}", 5),
            ("{4: 1, }", 7),
            ("{4294967296: 1}", 1),
        ] {
            assert_eq!(parse_dict(text), Err(at), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC*") {
            let _ = parse_dict(&text);
        }

        #[test]
        fn what_python_prints_is_read(pairs in proptest::collection::vec((any::<u32>(), 0.0..1.0_f64), 0..20)) {
            let body: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}: {value:?}")).collect();
            prop_assert_eq!(parse_dict(&format!("{{{}}}", body.join(", "))), Ok(pairs));
        }
    }
}
